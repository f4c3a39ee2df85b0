"""The first twenty losses of every family on the embedded world. Renew the stored ones:

    .venv/bin/python -m tests.curves
"""  # fmt: skip

import tempfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from dvp.build import build_data, build_module
from dvp.config import EXPERIMENTS, SHAPES, check, ex
from dvp.runs.trainer import build_trainer
from dvp.shapes import build

STORED = Path(__file__).parent / "golden" / "curves"
FAMILIES = ("bert", "t5", "llama")
STAGES = ("search", "adaption")
STEPS = 20


class Losses(pl.Callback):
    """Collects the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.values.append(outputs["loss"].item())


def world(folder: str) -> str:
    """A small embedded world in `folder`."""
    build(folder, pictures_per_split={"train": 40, "val": 16, "test": 4})
    return folder


def run(family: str, stage: str, data_root: str, log_dir: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of the first steps of an experiment, and the trained weights after them."""
    parts: dict[str, Any] = {}
    for part in EXPERIMENTS[f"dvp_{stage}_{family}_vqa"]:
        parts |= part
    small = {"data_root": data_root, "log_dir": log_dir, "image_tokens": "live", "insert_layer": 2, "max_steps": STEPS}
    defaults = ex.configurations[0](preset={})
    config = check(dict(defaults) | parts | SHAPES | small | {"batch_size": 16, "per_gpu_batchsize": 16})
    pl.seed_everything(config["seed"], workers=True)
    data = build_data(config)
    module = build_module(config, data)
    trainer = build_trainer(config, module.monitor)
    losses = Losses()
    trainer.callbacks.append(losses)
    trainer.fit(module, datamodule=data)
    return losses.values, {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def main() -> None:
    """Store the curves of all families and stages."""
    torch.set_num_threads(1)
    STORED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data_root = world(f"{folder}/world")
        for family in FAMILIES:
            for stage in STAGES:
                losses, _ = run(family, stage, data_root, f"{folder}/result")
                path = STORED / f"{stage}_{family}.txt"
                path.write_text("".join(f"{step} {loss:.6f}\n" for step, loss in enumerate(losses)), encoding="utf-8")


if __name__ == "__main__":
    main()
