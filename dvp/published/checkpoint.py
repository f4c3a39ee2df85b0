"""Checkpoints of the published classification code, as Lightning 1.1.4 laid them out.

    state_dict                  an OrderedDict of tensors, frozen and trained weights alike, under the published names
    hyper_parameters            {"config": the settings} or the settings themselves; a search's data set beside them
    epoch, global_step          numbers
    callbacks                   what each callback kept, keyed by its class
    optimizer_states, lr_schedulers, hparams_name, pytorch-lightning_version

Everything is optional but state_dict. Of the settings, those below are ours by another name or by the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dvp.errors import UserError
from dvp.published.archive import Archive, Stub

# settings with which a checkpoint computes something else -> their type
DECISIVE = {
    "language_model": str, "search_stage": bool, "insert_layer": int, "use_adapter": bool, "num_heads": int,
    "image_size": int, "max_text_len": int,
}  # fmt: skip
PLACES = ("tokenizer", "clip_model")  # where weights lay: hub names or folders


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A checkpoint, its weights by the published names. What it does not hold is None or empty."""

    path: str
    state_dict: dict[str, Tensor]
    hyper_parameters: dict[str, Any]
    epoch: int | None
    global_step: int | None

    @property
    def settings(self) -> dict[str, Any]:
        """Our settings with which it computes what it did there, as far as it knows them; `datasets` is the task.

        LLaMA has no max_text_len, since its texts were not cut, and a search no insert_layer.
        """
        there = self._there
        tasks = [task for task, weight in _mapping(there.get("loss_names")).items() if weight and isinstance(task, str)]
        found = {"datasets": tasks[0]} if len(tasks) == 1 else {}
        found |= {key: there[key] for key, kind in DECISIVE.items() if type(there.get(key)) is kind}
        if found.get("search_stage"):
            found.pop("insert_layer", None)
        if found.get("language_model") == "LLAMA":
            found.pop("max_text_len", None)
        return found

    def as_config(self) -> dict[str, Any]:
        """The settings of a run that goes on from it where nothing else is said: its own, as published."""
        names = {key: self._there[key] for key in PLACES if isinstance(self._there.get(key), str)}
        # A folder of the machine where it was trained is none here.
        at_hand = {key: name for key, name in names.items() if Path(name).exists() or name[:1] not in "./~"}
        return at_hand | self.settings | {"as_published": True}

    @property
    def _there(self) -> dict[str, Any]:
        """The published code's settings."""
        inner = (_mapping(self.hyper_parameters.get(name)) for name in ("config", "_config"))
        return next(filter(None, inner), self.hyper_parameters)

    def num_answers(self, task: str) -> int | None:
        """How many answers its head tells apart; None where it has no head for the task."""
        answer = self.state_dict.get(f"{task}_classifier.3.weight")
        return None if answer is None else len(answer)

    def refuse_other(self, here: Mapping[str, Any]) -> None:
        """Raise UserError with the settings that differ between this checkpoint and the run that wants to load it."""
        there = self.settings
        differing = [key for key in there if key in here and here[key] not in (there[key], "auto")]
        if differing:
            listed = "; ".join(f"{key} is {there[key]} there and {here[key]} here" for key in differing)
            right = " ".join(f"{key}={there[key]}" for key in differing)
            raise UserError(
                f"The published checkpoint {self.path} was trained otherwise: {listed}. Type {right}, or leave these "
                "settings out."
            )
        if here.get("use_adapter", False) not in (True, False):
            raise UserError(
                f"The published checkpoint {self.path} has published adapters or none, and here use_adapter is "
                f"{here['use_adapter']}: type use_adapter=True or False."
            )


def read_lightning(path: str) -> PublishedCheckpoint:
    """The checkpoint in a file, read without running anything that it holds.

    Raises UserError for a file that is damaged or has no state_dict.
    """
    archive = Archive(path)
    content = _mapping(archive.content)
    state = archive.tensors(content.get("state_dict"))
    if state is None:
        raise UserError(
            f"{path} is no checkpoint of the published code, it has no state_dict of tensors: give another."
        )
    epoch, step = (value if type(value) is int else None for value in map(content.get, ("epoch", "global_step")))
    return PublishedCheckpoint(str(path), state, _mapping(content.get("hyper_parameters")), epoch, step)


def _mapping(value: Any) -> dict[str, Any]:
    """A dictionary, or what an object that stood for one held: its items, its first argument's, its attributes."""
    while isinstance(value, Stub) and not value.pairs and not isinstance(value.state, dict) and value.arguments:
        value = value.arguments[0]
    if isinstance(value, Stub):
        value = value.pairs or value.state
    return {key: item for key, item in value.items() if isinstance(key, str)} if isinstance(value, dict) else {}
