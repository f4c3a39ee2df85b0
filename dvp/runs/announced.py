"""The save that SLURM's announcement of a job's end asks for: put off to where a run can go on from."""

import signal
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import SLURMEnvironment


class BetweenUpdates(pl.Callback):
    """Lets Lightning save and requeue behind an update, on all ranks behind the same one, not amidst its arithmetic."""

    def __init__(self) -> None:
        self.announced = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save = signal.getsignal(signal.SIGUSR1) if SLURMEnvironment.detect() else None
        if callable(self.save):
            signal.signal(signal.SIGUSR1, self._note)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # A validation that is due comes first: a run that goes on would leave it out.
        if not pl_module.within_update and (batch_idx + 1) % trainer.val_check_batch:
            self._save_if_announced(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save_if_announced(trainer)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.announced = True

    def _save_if_announced(self, trainer: pl.Trainer) -> None:
        if callable(self.save) and trainer.strategy.reduce_boolean_decision(self.announced, all=False):
            self.announced = False
            self.save(signal.SIGUSR1, None)
