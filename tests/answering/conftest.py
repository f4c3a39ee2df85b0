"""Checkpoints of tiny models, trained for an update and with a head whose answers differ from question to question."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_world import PIXELS, fit

from dvp.config import check, ex
from dvp.files import write_checksums


@pytest.fixture(scope="session")
def checkpoint(
    data_root: str, clip_folder: str, language_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """The checkpoint of an experiment with `changes`, made once."""
    made: dict[str, Path] = {}

    def make(experiment: str, **changes: Any) -> Path:
        key = f"{experiment} {sorted(changes.items())}"
        if key not in made:
            settings = ex.settings | ex.named_configs[experiment]() | {
                "data_root": data_root, "clip_model": clip_folder, "image_size": PIXELS, "insert_layer": 1,
                "tokenizer": language_models[experiment.split("_")[2]], "num_heads": 4, "num_gpus": 0,
                "num_workers": 0, "batch_size": 8, "per_gpu_batchsize": 4, "max_steps": 1, "image_tokens": "live",
                "log_dir": str(tmp_path_factory.mktemp("trained")),
            } | changes  # fmt: skip
            (made[key],) = Path(fit(check(settings)).log_dir).rglob("last.ckpt")
            mix(made[key])
        return made[key]

    return make


def mix(folder: Path) -> None:
    """Draw the answer head of a checkpoint anew, so large that the answers differ."""
    weights = load_file(folder / "weights.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in weights.items():
        if ".head." in name or ".compressors." in name:
            weights[name] = torch.randn(tensor.shape, generator=generator)
    save_file(weights, folder / "weights.safetensors")
    write_checksums(folder)
