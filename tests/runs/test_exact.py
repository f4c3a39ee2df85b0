"""A run that goes on ends as one that never stopped: the same rows, dropout, arms, scores and weights, bit for bit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from tiny_world import fit

from dvp.checkpoints import TrainedOnly, trained_state

# 16 rows: two updates of three passes and one of two, so that half of an epoch's 8 passes end within an update.
EPOCHS = {"max_steps": None, "max_epoch": 3, "batch_size": 6, "per_gpu_batchsize": 2, "val_check_interval": 0.5}


class Watch(pl.Callback):
    """Notes what every pass did, and keeps the last checkpoint of before some passes of the second epoch."""

    def __init__(self, keep: Path | None = None, before: dict[int, str] | None = None):
        self.keep, self.before = keep, before or {}
        self.seen: list[tuple[int, int, int, float]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.arm = pl_module.arm
        if self.keep and trainer.current_epoch == 1 and batch_idx in self.before and trainer.is_global_zero:
            (last,) = Path(trainer.log_dir).rglob("last.ckpt")
            shutil.copytree(last, self.keep / f"{self.before[batch_idx]}.ckpt")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append((trainer.current_epoch, batch_idx, self.arm, outputs["loss"].item()))


def assert_same(module: pl.LightningModule, other: pl.LightningModule) -> None:
    expected, found = trained_state(module), trained_state(other)
    assert expected.keys() == found.keys()
    assert max((expected[name] - found[name]).abs().max().item() for name in expected) == 0
    if module.bandit:
        assert other.bandit.summary() == module.bandit.summary()


@pytest.mark.parametrize("by_length", [False, True], ids=["shuffled", "by length"])
@pytest.mark.parametrize("experiment", ["dvp_search_bert_vqa", "dvp_adaption_bert_vqa"])
def test_a_resumed_run_is_the_run_that_never_stopped(
    experiment: str, by_length: bool, configure, tmp_path: Path
) -> None:
    config = configure(experiment, **EPOCHS, bucket_by_length=by_length)
    whole = Watch(tmp_path, {0: "end", 5: "within"})
    expected = fit(config, whole).lightning_module
    assert len(whole.seen) == 24 and len({loss for *_, loss in whole.seen}) == 24
    assert "gradients" in TrainedOnly().load_checkpoint(str(tmp_path / "within.ckpt"))
    for name, left in (("end", 16), ("within", 12)):
        for workers in (0, 2):
            rest = Watch()
            there = {"resume_from": str(tmp_path / f"{name}.ckpt"), "num_workers": workers}
            resumed = fit(config | there | {"log_dir": str(tmp_path / f"{name}{workers}")}, rest).lightning_module
            assert rest.seen == whole.seen[-left:]
            assert_same(expected, resumed)


@pytest.mark.parametrize("stopped, goes_on", [(4, {}), (3, {"max_epoch": 1000, "max_steps": 9}), (4, {"max_steps": 9})])
def test_a_run_that_max_steps_ended_goes_on_with_the_rest_of_the_epoch(
    stopped: int, goes_on: dict[str, Any], configure, tmp_path: Path
) -> None:
    config = configure("dvp_adaption_bert_vqa", **EPOCHS | {"val_check_interval": 1.0}, decay_power="constant")
    whole, rest = Watch(), Watch()
    expected = fit(config | {"log_dir": str(tmp_path / "whole")}, whole).lightning_module
    part = fit(config | {"max_steps": stopped})
    (last,) = Path(part.log_dir).rglob("last.ckpt")
    resumed = fit(config | goes_on | {"resume_from": str(last)}, rest).lightning_module
    assert rest.seen == whole.seen[-len(rest.seen) :] and len(rest.seen) == {3: 16, 4: 13}[stopped]
    assert_same(expected, resumed)
