"""Checkpoints that hold what was trained: a folder of safetensors and JSON, no pickle.

weights.safetensors     exactly the trainable parameters
description.json        config, task, K, answers, and a fingerprint of the frozen base
training.safetensors    optimiser moments and other tensors of Lightning's state
training.json           the rest of Lightning's state: loops, schedules, callbacks, the search
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
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
from dvp.files import read_description, remove, write_whole


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
            save_file(weights, folder / "weights.safetensors")
            save_file(tensors, folder / "training.safetensors")
            (folder / "description.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
            (folder / "training.json").write_text(json.dumps(training), encoding="utf-8")

        write_whole(Path(path), write)

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        weights, description = read_checkpoint(path)
        folder = Path(path)
        with _refusing_damage(folder):
            tensors = load_file(folder / "training.safetensors")
            training = _unpack(json.loads((folder / "training.json").read_text(encoding="utf-8")), tensors)
        require_finite(moments(training.get("optimizer_states", [])))
        return training | {"state_dict": weights, "description": description}

    def remove_checkpoint(self, path: str) -> None:
        remove(Path(path))


def read_checkpoint(path: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The trained weights and the description of a checkpoint folder.

    Raises UserError when it is missing, no checkpoint, or damaged.
    """
    folder, description = Path(path), read_description(path)
    with _refusing_damage(folder):
        return current_weights(load_file(folder / "weights.safetensors"), description), description


def read_progress(path: str) -> dict[str, Any]:
    """How far the run of a checkpoint folder had come, as `progress_of` says it.

    Raises UserError when its training.json is damaged.
    """
    with _refusing_damage(Path(path)):
        text = (Path(path) / "training.json").read_text(encoding="utf-8")
        return progress_of(_unpack(json.loads(text), defaultdict(dict)))


def digest(path: str) -> str:
    """The sha256 of the weights of a checkpoint, our folder or a published code's file."""
    weights = Path(path) / "weights.safetensors"
    with open(weights if weights.is_file() else path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _refusing_damage(folder: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:  # of JSON too
        raise UserError(f"The checkpoint {folder} is damaged ({error}): take another one.") from error


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


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
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
