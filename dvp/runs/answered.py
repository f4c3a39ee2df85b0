"""What the best validation so far answered, question by question, and what of the first pictures it looked at."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytorch_lightning as pl
from torch import Tensor

from dvp.data.lengths import items_in_order
from dvp.evaluation.submission import gather

MOST = 20_000  # answers that are kept of a validation, of all ranks together
MOST_LOOKED = 2000  # of which it is kept what was looked at


class Answered(NamedTuple):
    """A question of a validation: its split, its place there, the score of its answer from 0 to 1, and the answer."""

    split: str
    item: int
    score: float
    text: str


class Validation(NamedTuple):
    """What a validation came to, in percent, and after which update.

    looked: of the first questions, by split and place, the weights (heads, N) of the image tokens.
    """

    score: float
    update: int
    rows: list[Answered]
    looked: dict[tuple[str, int], Tensor]


class BestAnswers(pl.Callback):
    """Keeps what the best validation of a training answered; computes nothing that is not computed anyway.

    best: on the first rank that validation, None before the first. monitor: the metric that picks the checkpoint.
    """

    def __init__(self, monitor: str):
        self.monitor = monitor
        self.best: Validation | None = None
        self.hook: Any = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rows: list[Answered] = []
        self.looked: dict[tuple[str, int], Tensor] = {}
        self.items: dict[int, Iterator[list[int]]] = {
            number: items_in_order(trainer.val_dataloaders[number])
            for number, split in enumerate(pl_module.task.validate)
            if split in pl_module.pick and trainer.state.fn == "fit"
        }
        self.maps: list[Tensor] = []
        if self.items and trainer.is_global_zero:
            attention = next(iter(pl_module.model.compressors_at(pl_module.best_layer).values())).attention
            self.hook = attention.register_forward_hook(lambda _, __, found: self.maps.append(found))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        maps, self.maps[:] = self.maps[:1], []  # of a text that is written, the first: of the question alone
        if dataloader_idx not in self.items:
            return
        split, items = pl_module.task.validate[dataloader_idx], next(self.items[dataloader_idx])
        if len(self.looked) < MOST_LOOKED:
            for weights in maps:  # (B, P, heads, N)
                keys = [(split, item) for item in items]
                self.looked |= zip(keys, weights.float().mean(1).cpu(), strict=True)
        else:
            self._unhook()
        if len(self.rows) * trainer.world_size < MOST:
            scores = outputs.scores.float().tolist()
            self.rows += map(Answered, [split] * len(items), items, scores, outputs.texts)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._unhook()
        score = trainer.callback_metrics.get(self.monitor)
        if not self.items or score is None or self.best and score <= self.best.score:  # on all ranks alike
            return
        self.best = Validation(float(score), trainer.global_step, gather(self.rows), self.looked)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._unhook()

    def _unhook(self) -> None:
        if self.hook:
            self.hook.remove()
        self.hook = None


def kept_answers(trainer: pl.Trainer) -> BestAnswers | None:
    """The callback of a trainer that keeps answers; None where the run is not reported."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, BestAnswers)), None)
