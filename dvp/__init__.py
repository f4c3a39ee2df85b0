"""Dynamic Visual Prompting: one visual token, put in front of the text before layer K of a language model."""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvp.answering import Answering

warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # Sacred imports it
# transformers imports it where it is installed, and it asks for a package that only 4 bit on a CPU would take
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def load(path: str | Path, **options: Any) -> "Answering":
    """The model of a checkpoint folder, or of an export on the Hugging Face hub by its name (user/name).

    It is ready to `answer(image, question)`; options: those of `dvp.answering.load`. Raises UserError for a folder that
    is no checkpoint, base weights that are not there or others, and a name that the hub does not give.
    """
    from dvp.answering import load  # here, so that a look at the settings does not wait for torch

    return load(path, **options)
