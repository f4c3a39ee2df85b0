"""Batches of rows in order of length, so that little of a batch is padding."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler


class LikeLengths(Sampler[list[int]]):
    """Batches of rows of like length, dealt to the ranks: each row once, the longest first."""

    def __init__(self, lengths: Sequence[int], batch_size: int, rank: int, ranks: int):
        order = np.argsort(lengths, kind="stable")[::-1]  # longest first: what does not fit shows at once
        batches = [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]
        self.batches = batches[rank::ranks]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class Batches(Dataset):
    """The rows of a dataset, asked for by lists of them."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, items: list[int]) -> list[Any]:
        return [self.dataset[item] for item in items]


def items_in_order(loader: DataLoader) -> Iterator[list[int]]:
    """The rows of the dataset that a loader for validation hands out, batch by batch."""
    if loader.batch_sampler is None:  # of texts of like length
        return iter(loader.sampler)
    return ([loader.dataset.indices[place] for place in batch] for batch in loader.batch_sampler)
