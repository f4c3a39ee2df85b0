"""When and where a run saves itself: every so often, behind an update, and when it is told to stop."""

import signal
import time
from itertools import chain, count
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins.environments import SLURMEnvironment

from dvp.checkpoints import TrainedOnly
from dvp.errors import Stopped
from dvp.files import remove, write_link
from dvp.runs.stopping import listen, stop_at_once
from dvp.runs.table import Table

LAST, KEPT = "last.ckpt", 2  # a link to the newest of so many
ASKED = {"nothing": 0, "save": 1, "requeue": 2, "SIGINT": 3, "SIGTERM": 4}  # of all ranks the largest counts


def seconds_between(save_every: int | str) -> float | None:
    """The seconds of `save_every` in minutes, None where it counts updates."""
    return 60 * float(save_every.split()[0]) if isinstance(save_every, str) else None


class Saving(Checkpoint):
    """Saves at validations and every `save_every`, on all ranks behind the same update, where a run can go on exactly.

    last.ckpt is a link that is switched in one step from the checkpoint before, which is kept, to the new one. SIGTERM
    and SIGINT are obeyed behind the update: the run is saved, and Stopped raised. There SLURM's announcement of a job's
    end is handed on to Lightning, too, which saves and requeues.
    """

    def __init__(self, save_every: int | str, table: Table, resumed: Path | None = None):
        self.updates, self.seconds = save_every, seconds_between(save_every)
        self.table = table
        self.kept = [resumed] if resumed else []
        self.asked = "nothing"
        self.training = False
        self.saved_at: tuple[int, int] | None = None

    # Signals

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training = True  # now, since the processes that load data inherit what is done about SIGINT
        listen(self._note)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        listen(self._note)  # again: Lightning has taken SIGTERM
        self.requeue = signal.getsignal(signal.SIGUSR1) if SLURMEnvironment.detect() else None
        if callable(self.requeue):
            signal.signal(signal.SIGUSR1, lambda signum, frame: self._ask("requeue"))
        self.folder = Path(trainer.default_root_dir) / "checkpoints"
        self.next_save = time.monotonic() + (self.seconds or 0)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training = False

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        listen(self._note)

    def _note(self, name: str) -> None:
        if not self.training or self.asked == name == "SIGINT":  # twice: it shall not wait for the update
            stop_at_once(name)
        self._ask(name)

    def _ask(self, name: str) -> None:
        self.asked = max(self.asked, name, key=ASKED.__getitem__)

    # Saving

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # A validation that is due comes first: a run that goes on would leave it out. So does the end of a run.
        ends = trainer.should_stop or trainer.global_step == trainer.max_steps
        if not pl_module.within_update and not ends and (batch_idx + 1) % trainer.val_check_batch:
            self._save_if_asked(trainer, timed=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.training:
            return
        if trainer.val_check_interval != 1.0:
            self._save(trainer)
            self._save_if_asked(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)
        self._save_if_asked(trainer)

    def _save_if_asked(self, trainer: pl.Trainer, timed: bool = False) -> None:
        asked = self._agreed(trainer, timed)
        if asked == "nothing":
            return
        self.table.pending = timed
        if asked == "requeue":
            self.asked = "nothing"
            self.requeue(signal.SIGUSR1, None)
        else:
            self._save(trainer)
        self.table.pending = False
        if asked in ("SIGINT", "SIGTERM"):
            raise Stopped(asked, saved=str(self.folder / LAST))

    def _agreed(self, trainer: pl.Trainer, timed: bool) -> str:
        """What is to be done, on all ranks alike."""
        due = timed and (
            trainer.global_step % self.updates == 0 if self.seconds is None else time.monotonic() >= self.next_save
        )
        asked = max(self.asked, "save" if due else "nothing", key=ASKED.__getitem__)
        if trainer.world_size > 1:
            number = torch.tensor(ASKED[asked], device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(number, reduce_op="max"))
            asked = next(name for name, value in ASKED.items() if value == number)
        return asked

    def _save(self, trainer: pl.Trainer) -> None:
        """Write a new checkpoint, let last.ckpt be that one, and remove those before the one before."""
        place = (trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.processed)
        if self.saved_at == place or trainer.fast_dev_run:
            return
        path = _free(self.folder / "last-epoch={}-pass={}.ckpt".format(*place)) if trainer.is_global_zero else None
        trainer.save_checkpoint(trainer.strategy.broadcast(path))
        self.saved_at, self.next_save = place, time.monotonic() + (self.seconds or 0)
        if trainer.is_global_zero:
            write_link(self.folder / LAST, path.name)
            self.kept = [*self.kept, path][-KEPT:]
            for other in self.folder.glob("last-*.ckpt"):
                if other not in self.kept:
                    remove(other)


class Best(ModelCheckpoint):
    """Keeps the best checkpoint so far, also where a run goes on in another folder, to which it is copied."""

    def __init__(self, monitor: str):
        super().__init__(monitor=monitor, mode="max", enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up which checkpoint was the best, and how good it was."""
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.ckpt_path and not trainer.fast_dev_run:
            if trainer.is_global_zero:
                self._take_over(Path(trainer.ckpt_path).resolve().parent)
            state = trainer.strategy.broadcast(self.state_dict())
            super().load_state_dict(state)

    def _should_remove_checkpoint(self, trainer: pl.Trainer, previous: str, current: str) -> bool:
        # Lightning's own keeps the one that the run goes on from, which is then there beside the best.
        return previous != current and Path(self.dirpath).absolute() in Path(previous).absolute().parents

    def _take_over(self, beside: Path) -> None:
        """Have the best checkpoint in the run's folder, and none that a part of the run left which is done again."""
        own = Path(self.dirpath)
        found = [path for path in (Path(self.best_model_path), beside / Path(self.best_model_path).name)
                 if self.best_model_path and path.is_dir()]  # fmt: skip
        for path in own.glob("epoch=*.ckpt"):
            if not found or path.name != found[0].name:
                remove(path)
        if not found:  # none yet, or it was removed: the next is the best
            self.best_k_models, self.best_model_path, self.kth_best_model_path = {}, "", ""
            self.best_model_score = None
            return
        place = own / found[0].name
        if place.absolute() != found[0].absolute():
            TrainedOnly().copy_checkpoint(found[0], place)
        self.best_model_path = self.kth_best_model_path = str(place)
        self.best_k_models = {str(place): self.best_model_score}


def _free(path: Path) -> Path:
    """The path, or one like it where something is."""
    numbered = (path.with_name(f"{path.stem}-v{number}.ckpt") for number in count(1))
    return next(one for one in chain([path], numbered) if not one.exists())
