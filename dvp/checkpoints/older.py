"""Checkpoints as they were once: without a format, ScienceQA's parts had other names; generators had one state."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dvp.errors import UserError

# How the names of the parts began, and begin
SCIENCE_QA = (
    ("llama.lm_head.", "head."),
    ("llama.model.", "backbone.model."),
    ("vision.", "vision.encoder."),
    ("projector.", "prefix.projector."),
    ("modality.", "prefix.modality."),
    ("slot", "prefix.slot"),
)


def current_weights(weights: dict[str, Tensor], description: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint by the names that they have today."""
    if not _named_otherwise(description):
        return weights
    return {f"model.{_begun_anew(name.removeprefix('model.'), SCIENCE_QA)}": one for name, one in weights.items()}


def name_then(description: dict[str, Any]) -> Callable[[str], str]:
    """From the name of one of a model's parameters to the one that it had when the checkpoint was written."""
    if not _named_otherwise(description):
        return str
    back = tuple((now, then) for then, now in SCIENCE_QA)
    return lambda name: _begun_anew(name, back)


def current_generators(states: list[dict[str, Tensor]] | dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The states of a checkpoint's generators by rank; once there was one, from which all ranks drew."""
    return [states] if isinstance(states, dict) else states


def refuse_to_go_on(description: dict[str, Any]) -> None:
    """Raise UserError for a checkpoint whose optimiser's moments are of parameters in another order."""
    if _named_otherwise(description):
        raise UserError(
            "resume_from: this ScienceQA checkpoint is of an older format, whose optimiser can't be gone on with: "
            "start from its weights with load_path, or test it."
        )


def _named_otherwise(description: dict[str, Any]) -> bool:
    return "format" not in description and description["task"] == "scienceqa"


def _begun_anew(name: str, table: tuple[tuple[str, str], ...]) -> str:
    return next((new + name.removeprefix(old) for old, new in table if name.startswith(old)), name)
