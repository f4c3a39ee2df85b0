"""Dynamic Visual Prompting: one visual token, put in front of the text before layer K of a language model."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvp.answering import Answering

warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # Sacred imports it


def load(path: str | Path, **options: Any) -> "Answering":
    """The model of a checkpoint folder, ready to `answer(image, question)`; options: those of `dvp.answering.load`.

    Raises UserError for a folder that is no checkpoint, and for base weights that are not there or others.
    """
    from dvp.answering import load  # here, so that a look at the settings does not wait for torch

    return load(path, **options)
