"""When a training first passes a level."""

import pytorch_lightning as pl


class Reached(pl.Callback):
    """Ends a training at the validation in which `monitor` reaches `level` percent; `updates` says when, or None."""

    def __init__(self, monitor: str, level: float):
        self.monitor, self.level = monitor, level
        self.updates: int | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.updates is None and float(trainer.callback_metrics[self.monitor]) >= self.level:
            self.updates = trainer.global_step
            trainer.should_stop = True
