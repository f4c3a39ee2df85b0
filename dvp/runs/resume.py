"""Going on from a checkpoint with other settings: what is refused, and what counts from there on."""

from typing import Any

import pytorch_lightning as pl

from dvp.checkpoints import read_description, read_progress
from dvp.errors import UserError

# What a run is: with another there is no telling which rows were seen, or what the moments are worth.
SAME = ("seed", "batch_size", "optim_type")
# What an epoch is cut by; a whole one is the same rows whatever cuts it.
SAME_WITHIN_AN_EPOCH = ("per_gpu_batchsize", "num_gpus", "num_nodes", "cpu_processes", "bucket_by_length")
# What counts from there on, and is said. What a checkpoint's description holds is refused by it; the rest, such as
# num_workers or log_dir, changes nothing that is computed.
TAKEN = (
    "learning_rate", "lr_mult", "weight_decay", "decay_power", "end_lr", "warmup_steps", "max_epoch", "max_steps",
    "drop_rate", "search_sample", "search_warmup_steps", "precision",
)  # fmt: skip


def check_resume(config: dict[str, Any]) -> None:
    """Say which settings count anew from the checkpoint `resume_from` on.

    Raises UserError for a setting that cannot change there, with both values.
    """
    path = config["resume_from"]
    then, progress = read_description(path).get("config") or {}, read_progress(path)
    _refuse(path, _changed(SAME, then, config), "it must stay what it is")
    if progress["within"]:
        changed = _changed(SAME_WITHIN_AN_EPOCH, then, config)
        _refuse(path, changed, "this checkpoint lies within an epoch, whose rows it must go on with")
    if taken := _changed(TAKEN, then, config):
        print("resume_from: from here on " + ", ".join(f"{k}={here} ({there} until now)" for k, there, here in taken))


def _changed(keys: tuple[str, ...], then: dict[str, Any], config: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(key, then[key], config[key]) for key in keys if key in then and then[key] != config[key]]


def _refuse(path: str, changed: list[tuple[str, Any, Any]], why: str) -> None:
    if changed:
        listed = " and ".join(f"{key}={here}, which is {there} in the checkpoint" for key, there, here in changed)
        first = ", ".join(f"{key}={there}" for key, there, _ in changed)
        raise UserError(f"resume_from={path} cannot go on with {listed}: {why}. Give {first}, or start from load_path.")


class GoingOn(pl.Callback):
    """Lets a resumed run have its own rates and decays where Lightning brings back those of the checkpoint.

    path: `resume_from`, from which there must be something left to train; None where a requeued run goes on by itself.
    """

    def __init__(self, path: str | None):
        self.path = path

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.path is None or not trainer.training or pl_module.bandit:  # of a search K is still to be written down
            return
        progress = read_progress(self.path)
        for key, done, limit in (
            ("max_epoch", progress["epochs"], trainer.max_epochs),
            ("max_steps", progress["global_step"], trainer.max_steps),
        ):
            if 0 <= limit <= done:
                raise UserError(
                    f"resume_from={self.path} has come as far as {key}={limit} asks for: set {key} higher to go on."
                )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.groups = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]
        self.rates = [list(schedule.scheduler.base_lrs) for schedule in trainer.lr_scheduler_configs]
        # Where max_steps is set, Lightning ends an epoch a second time that had ended in the checkpoint.
        self.max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps
        for optimizer, own in zip(trainer.optimizers, self.groups, strict=True):
            for group, settings in zip(optimizer.param_groups, own, strict=True):
                group.update(settings)
        for schedule, rates in zip(trainer.lr_scheduler_configs, self.rates, strict=True):
            scheduler = schedule.scheduler
            scheduler.base_lrs = rates
            # where the schedule stands, which may be another one or a longer one than the checkpoint's
            now = [rate * at(scheduler.last_epoch) for rate, at in zip(rates, scheduler.lr_lambdas, strict=True)]
            for group, rate in zip(scheduler.optimizer.param_groups, now, strict=True):
                group["lr"] = rate
            scheduler._last_lr = now
