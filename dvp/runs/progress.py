"""How far a run is: bars where somebody looks on, a few plain lines elsewhere; and early on, what it will take."""

import sys
import time
from datetime import datetime, timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar

EVERY = 10  # updates between two looks at the loss: to show it is to wait for the device
SILENT = 60  # seconds without a line at most
SETTLED = 10  # updates after which a run's speed is known


def progress_bar() -> ProgressBar:
    """Rich's bars on a terminal, else lines."""
    return Bars(refresh_rate=4) if sys.stdout.isatty() else Lines()


class Bars(RichProgressBar):
    """Rich's bars, which look at the loss in every tenth pass."""

    def __init__(self, refresh_rate: int):
        super().__init__(refresh_rate)
        self.shown: dict[str, Any] = {}

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        """Lightning's, narrower and without the speed: the metrics have to find room in 80 columns, too."""
        description, bar, batches, clock_, *_ = super().configure_columns(trainer)
        bar.bar_width = 16
        return [description, bar, batches, clock_]

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch}"  # Lightning adds how many there are, which is -2 where max_steps counts

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The metrics beside the bar, without the task in front; the run's folder is told elsewhere."""
        if not trainer.training or trainer.fit_loop.batch_idx % EVERY == 0:
            self.shown = {name.partition("/")[2] or name: value for name, value in trainer.progress_bar_metrics.items()}
        return self.shown


class Lines(ProgressBar):
    """A line at every validation, and one a minute between; of an update no two."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:  # Lightning asks this of all processes but the first
        self.enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = self.last = time.perf_counter()
        self.first = self.told = trainer.global_step
        self.updates = int(trainer.estimated_stepping_batches)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        validates = trainer.should_stop or (batch_idx + 1) % trainer.val_check_batch == 0  # and then has a line
        if not validates and trainer.global_step != self.told and time.perf_counter() - self.last >= SILENT:
            self._line(trainer, validated=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._line(trainer, validated=True)

    def _line(self, trainer: pl.Trainer, validated: bool) -> None:
        self.last, done = time.perf_counter(), trainer.global_step
        if not self.enabled or done == self.first:
            return
        self.told = done
        known = trainer.progress_bar_metrics  # with scores of the validation before, which would pass for new ones
        shown = [name for name in known if validated or "/train/" in name or "/" not in name]
        numbers = "  ".join(f"{name} {known[name]:.4g}" for name in shown)
        left = (self.last - self.began) / (done - self.first) * (self.updates - done)
        where = f"epoch {trainer.current_epoch}, update {done} of {self.updates}"
        print(f"{where}: {numbers}  {clock(left)} left", flush=True)


class ValidatesAtEnd(pl.Callback):
    """Validates after the last of `max_steps`, too, where that lies within an epoch."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True  # Lightning validates before it stops, but not where it has come to max_steps


class Duration(pl.Callback):
    """When a run began, and the seconds that it has taken, with those of the parts that it goes on from (`earlier`)."""

    def __init__(self) -> None:
        self.began = datetime.now().astimezone().isoformat(" ", "seconds")
        self.earlier, self.start = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Those of all its parts until now."""
        return self.earlier + time.perf_counter() - self.start

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on has to know."""
        return {"began": self.began, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from there."""
        self.began, self.earlier = state_dict["began"], state_dict["seconds"]


def duration_of(trainer: pl.Trainer) -> Duration:
    """The callback of a trainer that knows when its run began."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, Duration))


class Estimate(pl.Callback):
    """Says after the first updates how long the run will take, and how much memory it has taken."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first: int | None = trainer.global_step
        self.began: float | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.first is None or trainer.global_step == self.first:
            return
        if self.began is None:  # the first update, which warms up, is not counted
            self.began, self.first = time.perf_counter(), trainer.global_step
        elif trainer.global_step >= self.first + SETTLED:
            self._say(trainer, pl_module)
            self.first = None

    def _say(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        memory = memory_taken(pl_module.device)  # which waits for a GPU
        speed = (trainer.global_step - self.first) / (time.perf_counter() - self.began)
        left = int(trainer.estimated_stepping_batches) - trainer.global_step
        print(
            f"{speed:.3g} updates/s: about {clock(left / speed)} for the {left:,} that are left, validation not "
            f"counted; {memory}",
            flush=True,
        )


def memory_taken(device: torch.device) -> str:
    """The most memory that this process has taken so far, on its GPU or of the machine, in words."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        most, there = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
        return f"{most / 1e9:.1f} of {there / 1e9:.1f} GB on the GPU so far"
    import resource  # not on Windows, which has no such count

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"{most / 1e9:.1f} GB of memory so far"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
