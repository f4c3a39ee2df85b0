"""Batches of rows of like length, so that little of a batch is padding."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

POOL = 50  # batches whose rows are sorted by length together: small enough to shuffle, large enough to save padding


class LikeLengths(Sampler[list[int]]):
    """Batches of rows of like length, dealt to the ranks: in order of length, each row once, or shuffled each epoch.

    A shuffled epoch (`seed` is set) gives every rank as many batches, all full: the first rows come again at its end.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, rank: int, ranks: int, seed: int | None = None):
        self.lengths, self.batch_size = np.asarray(lengths), batch_size
        self.rank, self.ranks = rank, ranks
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Which shuffle comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.seed is None:
            return len(range(self.rank * self.batch_size, len(self.lengths), self.ranks * self.batch_size))
        return math.ceil(len(self.lengths) / (self.batch_size * self.ranks))

    def __iter__(self) -> Iterator[list[int]]:
        if self.seed is None:
            order = np.argsort(self.lengths, kind="stable")[::-1]  # longest first: what does not fit shows at once
            yield from (batch.tolist() for batch in self._cut(order, self.batch_size)[self.rank :: self.ranks])
            return
        random = np.random.default_rng([self.seed, self.epoch])
        step = self.batch_size * self.ranks  # rows that all ranks take at once
        order = np.resize(random.permutation(len(self.lengths)), len(self) * step)
        pools = [pool[np.argsort(self.lengths[pool], kind="stable")] for pool in self._cut(order, POOL * step)]
        steps = [rows for pool in pools for rows in self._cut(pool, step)]
        for index in random.permutation(len(steps)):
            yield steps[index][self.rank :: self.ranks].tolist()

    @staticmethod
    def _cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
        return [rows[start : start + size] for start in range(0, len(rows), size)]


class Batches(Dataset):
    """The rows of a dataset, asked for by lists of them."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, items: list[int]) -> list[Any]:
        return [self.dataset[item] for item in items]
