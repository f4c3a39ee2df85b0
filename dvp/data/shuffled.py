"""Rows in random order, update by update: the same whoever shares them, and from any point of an epoch on."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

POOL = 3200  # rows that are sorted by length together: few enough to shuffle, many enough to save padding


class Share(NamedTuple):
    """A device's rows of one pass, and what makes of their mean loss its part of the update's.

    That is so after the passes of an update, and the devices, are averaged.
    """

    rows: list[int]
    weight: float


class Shuffled(Sampler[Share]):
    """A device's passes over `size` rows, shuffled anew each epoch, by seed and epoch alone.

    An update takes the next batch_size * ranks * passes rows, the last of an epoch what is left: its rows are the same
    however they are split, and none counts twice. Where fewer are left than devices, the others get one that has no
    weight. lengths: an update's rows are of like length; counted: over how much the loss of each row is averaged, if
    not over rows. `start` passes of the epoch are left out, until the next one.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        passes: int = 1,
        lengths: np.ndarray | None = None,
        counted: np.ndarray | None = None,
    ):
        self.size, self.seed, self.rank, self.ranks, self.passes = size, seed, rank, ranks, passes
        self.pass_rows, self.update_rows = batch_size * ranks, batch_size * ranks * passes  # of all devices
        self.lengths = lengths
        self.counted = np.ones(size, int) if counted is None else counted
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int | None = None) -> None:
        """Which shuffle comes next, without its first `start` passes; by default those that were left out, or none."""
        self.start = start if start is not None else self.start if epoch == self.epoch else 0
        self.epoch = epoch

    def __len__(self) -> int:
        updates, left = divmod(self.size, self.update_rows)
        return updates * self.passes + math.ceil(left / self.pass_rows)

    def __iter__(self) -> Iterator[Share]:
        # Not a generator: the epoch is that of the call, also where the first row is only asked for later.
        return islice(self._shares(self.epoch), self.start, None)

    def _shares(self, epoch: int) -> Iterator[Share]:
        for update in self._updates(epoch):
            mean = max(1, self.counted[update].sum()) / (self.passes * self.ranks)
            for rows in _cut(update, self.pass_rows):
                own = rows[self.rank :: self.ranks]
                yield Share((own if len(own) else rows[:1]).tolist(), float(self.counted[own].sum() / mean))

    def _updates(self, epoch: int) -> list[np.ndarray]:
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(self.size, generator=generator).numpy()
        if self.lengths is None:
            return _cut(order, self.update_rows)
        whole = self.size - self.size % self.update_rows
        pools = _cut(order[:whole], max(1, POOL // self.update_rows) * self.update_rows)
        updates = [rows for pool in pools for rows in _cut(self._sorted(pool), self.update_rows)]
        shuffled = [updates[index] for index in torch.randperm(len(updates), generator=generator)]
        return shuffled + _cut(self._sorted(order[whole:]), self.update_rows)

    def _sorted(self, rows: np.ndarray) -> np.ndarray:
        return rows[np.argsort(self.lengths[rows], kind="stable")]


class Shares(Dataset):
    """The batches of a dataset, asked for by shares; each brings its weight."""

    def __init__(self, dataset: Dataset, collate: Callable[[list[Any]], dict[str, Any]]):
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, share: Share) -> dict[str, Any]:
        return self.collate([self.dataset[row] for row in share.rows]) | {"weight": share.weight}


def _cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
