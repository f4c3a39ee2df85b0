"""The guard against numbers that are not finite: a run ends before such an update, and saves no such weights."""

import math
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from dvp.checkpoints import moments, not_finite, trained_state
from dvp.errors import UserError
from dvp.evaluation.submission import gather
from dvp.files import write_json

NEVER = 2**62  # an update that no run comes to
LOSS, GRADIENTS = range(2)
WHAT = ("The loss is", "The gradients are")
FILE = "not_finite.json"  # in the run's folder


class Finite(pl.Callback):
    """Ends a run whose loss, gradients or weights are not finite, with the questions of that update in a file.

    Notes are taken on the device, which also leaves the update out: fused optimisers do so where `found_inf` says it,
    a GradScaler where gradients are not finite. They are read where a run waits for its device anyway: on a CPU in
    every update, on a GPU when it logs, validates, saves and ends; by then no weight has changed.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first = torch.full((2,), NEVER, device=pl_module.device)  # update of the first such loss, gradients
        self.every = 1 if pl_module.device.type == "cpu" else trainer.log_every_n_steps
        self.asked: dict[int, list[Any]] = {}  # the questions of an update

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        update = trainer.global_step + 1
        self.asked.setdefault(update, []).extend(batch.get("question_id", ()))
        self.asked.pop(update - 2 * self.every, None)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self._note(LOSS, ~loss.detach().isfinite(), trainer.global_step + 1)
        # An infinite loss may have finite gradients, and other ranks have a loss of their own: these tell them all.
        loss.register_hook(_spoiling(self._found))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        gradients = [one.grad for one in parameters if one.grad is not None and one.grad.numel()]
        bad = ~get_total_norm(gradients).isfinite().to(self.first.device)
        if scaler := getattr(trainer.precision_plugin, "scaler", None):
            bad &= scaler.scale(torch.ones((), device=bad.device)) <= 1  # else it takes a smaller scale and goes on
        update = trainer.global_step + 1
        self._note(GRADIENTS, bad, update)
        if pl_module.device.type == "cuda" and not scaler:  # which sets it itself
            optimizer.found_inf = self._found.float()
        if update % self.every == 0:
            self._read(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._read(trainer)
        self._check_weights(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read(trainer)
        self._check_weights(trainer, pl_module)

    @property
    def _found(self) -> Tensor:
        return (self.first != NEVER).any()

    def _note(self, which: int, bad: Tensor, update: int) -> None:
        self.first[which] = torch.minimum(self.first[which], torch.where(bad, update, NEVER))

    def _read(self, trainer: pl.Trainer) -> None:
        """Raise UserError, on all ranks, where a loss or gradients were not finite."""
        first = trainer.strategy.reduce(self.first.clone(), reduce_op="min").tolist()
        update = min(first)
        if update != NEVER:
            self._end(trainer, f"{WHAT[first.index(update)]} not finite in update {update}", update)

    def _check_weights(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise UserError where a trained weight, or what the optimiser remembers of it, is not finite."""
        named = trained_state(pl_module) | moments([one.state_dict() for one in trainer.optimizers])
        if found := not_finite(named):
            update = trainer.global_step
            self._end(trainer, f"After update {update} weights are not finite, the first {found[0]}", update)

    def _end(self, trainer: pl.Trainer, what: str, update: int) -> None:
        asked, where = gather(self.asked.get(update, [])), ""
        if not trainer.fast_dev_run:
            path = Path(trainer.log_dir) / FILE  # asked on all ranks, since it talks to them
            where = f" (its questions are in {path})"
            if trainer.is_global_zero:
                epoch = trainer.current_epoch
                write_json(path, {"format": 1, "what": what, "update": update, "epoch": epoch, "question_ids": asked})
        raise UserError(
            f"{what}{where}: the run ends before it is used, and the checkpoints of before stay; go on from one with a "
            "smaller learning_rate, or look at these questions."
        )


def _spoiling(found: Tensor) -> Callable[[Tensor], Tensor]:
    """A hook that makes gradients NaN where `found` holds, and leaves the others as they are, to the bit."""
    return lambda gradient: torch.where(found, math.nan, gradient).to(gradient)
