"""Checkpoints that hold what was trained: a folder of safetensors and JSON, no pickle.

weights.safetensors     exactly the trainable parameters
description.json        config, task, K, answers, and a fingerprint of the frozen base
training.safetensors    optimiser moments and other tensors of Lightning's state
training.json           the rest of Lightning's state: loops, schedules, callbacks, the search
checksums.json          the sha256 of each of these, which is checked when they are read
"""

import csv
import hashlib
import io
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dvp.checkpoints.older import current_weights
from dvp.checkpoints.standing import moments, progress_of
from dvp.checkpoints.weights import require_finite
from dvp.errors import UserError
from dvp.files import (
    ANOTHER,
    WEIGHTS,
    check_checksums,
    description_name,
    read_description,
    read_json,
    remove,
    write_checksums,
    write_whole,
)

# What reading a folder's files may raise, and making of them what they should hold.
DAMAGE = (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class TrainedOnly(CheckpointIO):
    """Saves and loads Lightning's checkpoints in the folder format above."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        rest = dict(checkpoint)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in rest.pop("state_dict").items()}
        description = rest.pop("description")
        tensors: dict[str, Tensor] = {}
        training = _pack(rest, tensors)

        def write(folder: Path) -> None:
            folder.mkdir()
            save_tensors(weights, folder / "weights.safetensors")
            save_tensors(tensors, folder / "training.safetensors")
            (folder / "description.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
            (folder / "training.json").write_text(json.dumps(training), encoding="utf-8")
            write_checksums(folder)

        write_whole(Path(path), write)

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        folder = Path(path).resolve()  # once: last.ckpt may meanwhile become another
        weights, description = read_checkpoint(str(folder))
        training = _read_training(folder, _load(folder, "training.safetensors"))
        with _refusing_damage(folder / "training.json"):
            require_finite(moments(training.get("optimizer_states", [])))
        return training | {"state_dict": weights, "description": description}

    def copy_checkpoint(self, path: Path, to: Path) -> None:
        """Have the same checkpoint in another place, whole or not at all."""
        write_whole(to, lambda place: shutil.copytree(path, place))

    def remove_checkpoint(self, path: str) -> None:
        remove(Path(path))


def read_checkpoint(path: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The trained weights and the description of a checkpoint folder.

    Raises UserError when it is missing, no checkpoint, or damaged.
    """
    folder = Path(path).resolve()
    description = read_description(str(folder) if folder.exists() else path)
    weights = _load(folder, WEIGHTS[description_name(folder)])
    return current_weights(weights, description), description


def read_progress(path: str) -> dict[str, Any]:
    """How far the run of a checkpoint folder had come, as `progress_of` says it.

    Raises UserError when its training.json is damaged.
    """
    return progress_of(_read_training(Path(path), defaultdict(dict)))


def read_scores(path: str) -> dict[str, float]:
    """The newest value of each metric that the run of a checkpoint folder had written until it was saved, by name.

    Without those of the training itself. Raises UserError when its training.json is damaged.
    """
    if not (Path(path) / "training.json").is_file():  # moved without it
        return {}
    training = _read_training(Path(path), defaultdict(dict))
    return newest(training.get("callbacks", {}).get("Table", {}).get("text", ""))


def newest(table: str) -> dict[str, float]:
    """The newest value of each metric of a split in the text of a metrics.csv, without those of the training itself."""
    found: dict[str, float] = {}
    for row in csv.DictReader(io.StringIO(table, newline="")):
        found |= {name: float(value) for name, value in row.items() if name and name.count("/") == 2 and value}
    return {name: value for name, value in found.items() if name.split("/")[1] != "train"}


def _load(folder: Path, name: str) -> dict[str, Tensor]:
    check_checksums(folder, name)
    with _refusing_damage(folder / name):
        return load_file(folder / name)


def _read_training(folder: Path, tensors: Mapping[str, Any]) -> dict[str, Any]:
    check_checksums(folder, "training.json")
    path = folder / "training.json"
    with _refusing_damage(path):
        training = _unpack(read_json(path, remedy=ANOTHER), tensors)
        progress_of(training)  # all of it is there
    return training


def digest(path: str) -> str:
    """The sha256 of the weights of a checkpoint, our folder, exported too, or a published code's file."""
    weights = [place for name in WEIGHTS.values() if (place := Path(path) / name).is_file()]
    with open(weights[0] if weights else path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _refusing_damage(file: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"The checkpoint is damaged, in {file} ({reason}): take another one.") from error


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors; raises OSError where there is no room."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # of a full disk, too
        raise OSError(str(error)) from error


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON can hold it; tensors go aside, and keys that are no strings are kept as pairs."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_pack(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _unpack(value: Any, tensors: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "items":
            return {key: _unpack(item, tensors) for key, item in content}
        case "tuple":
            return tuple(_unpack(item, tensors) for item in content)
        case _:
            return [_unpack(item, tensors) for item in content]
