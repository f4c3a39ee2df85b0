"""The LightningDataModule: which split feeds training, validation, test and the search."""

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler, Subset

from dvp.data.arrow import open_table, read_answers, read_picture
from dvp.data.lengths import LikeLengths
from dvp.data.pictures import cache_rows, encode_pictures, missing_pictures, picture_hashes
from dvp.data.questions import Batches, Collate, Questions
from dvp.errors import UserError
from dvp.tasks import Task
from dvp.token_cache import NoRoom, TokenCache

HELD_AT_ONCE = 1024  # pictures copied to the device at a time


class QuestionData(pl.LightningDataModule):
    """The splits of one task, opened (and missed) at construction.

    pick: the splits whose score rewards the search; batch_size: rows per device and forward pass; bucket_by_length:
    shuffled batches hold texts of like length.
    """

    def __init__(
        self,
        task: Task,
        data_root: str,
        tokenizer: Any,
        transform: Callable[[Image.Image], Tensor] | None,
        *,
        pick: tuple[str, ...],
        test: tuple[str, ...],
        batch_size: int,
        search_batch_size: int,
        max_text_len: int = 16,
        pad_to_max: bool = False,
        bucket_by_length: bool = False,
        num_workers: int = 8,
        seed: int = 0,
    ):
        super().__init__()
        self.task, self.pick, self.test = task, pick, test
        self.batch_size, self.search_batch_size = batch_size, search_batch_size
        self.bucket_by_length = bucket_by_length
        self.num_workers, self.seed = num_workers, seed
        self.transform = transform
        splits = dict.fromkeys((*task.train, *task.validate, *pick, *test))
        self.data_root = Path(data_root)
        self.tables = {split: open_table(data_root, task.files, split, task.columns) for split in splits}
        self.cache: TokenCache | None = None
        self.held: Tensor | None = None  # the tokens of all pictures, on the device
        self.picture_rows: dict[str, np.ndarray] = {}  # split -> row in the cache of every picture
        self.answers = read_answers(data_root, task)
        self.collate = Collate(tokenizer, task, len(self.answers), max_text_len, pad_to_max)
        for needed, labelled in ((task.train, True), (pick, False)):
            if not len(self.questions(needed, labelled)):
                tables = " and ".join(f"{task.files}_{split}.arrow" for split in needed)
                raise UserError(f"{tables} in {data_root} hold no question to use: convert the raw data again.")

    def questions(self, splits: tuple[str, ...], labelled_only: bool = False) -> Questions:
        """The questions of these splits, in the order of the tables."""
        rows = [self.picture_rows[split] for split in splits] if self.cache else None
        return Questions([self.tables[split] for split in splits], self.task, self.transform, labelled_only, rows)

    def use_cache(self, cache: TokenCache, encode: Callable[[Tensor], Tensor]) -> None:
        """From now on hand out image tokens of `cache`, once the pictures that it lacks are encoded, by all ranks.

        encode: pixel values (B, 3, H, W) to image tokens (B, N, Dv). Raises NoRoom, on all ranks, for a full disk.
        """
        strategy = self.trainer.strategy
        hashes = {split: self._picture_hashes(split, cache) for split in self.tables}
        with cache.building() if self._rank == 0 else nullcontext():
            strategy.barrier("another run may have built the cache")
            cache.open()
            missing = missing_pictures(cache, [(self.tables[split], hashes[split]) for split in self.tables])
            # Rank 0 looks for all, before any of them writes: they might disagree, and wait for each other.
            if shortage := strategy.broadcast(cache.shortage(len(missing)) if self._rank == 0 else ""):
                raise NoRoom(shortage)
            encode_pictures(
                cache,
                dict(itertools.islice(missing.items(), self._rank, None, self._world_size)),
                self.transform,
                encode,
                batch_size=self.batch_size,
                num_workers=self.num_workers,
                progress=self._rank == 0,
            )
            strategy.barrier("all ranks have written their share")
        cache.open()
        self.picture_rows = {split: cache_rows(cache, found) for split, found in hashes.items()}
        self.cache = cache

    def hold_on(self, device: torch.device) -> None:
        """Hold the tokens of all pictures of the run on the device from now on, if they leave it half of its memory."""
        used, places = np.unique(np.concatenate(list(self.picture_rows.values())), return_inverse=True)
        need, free = len(used) * self.cache.image_bytes, _free_bytes(device)
        if need > free / 2:
            print(f"The image tokens stay on the host: they take {need / 1e9:.1f} of {free / 1e9:.1f} GB on {device}.")
            return
        sizes = np.cumsum([len(rows) for rows in self.picture_rows.values()])[:-1]
        self.picture_rows = dict(zip(self.picture_rows, np.split(places, sizes), strict=True))
        self.held = torch.empty((len(used), *self.cache.shape), dtype=self.cache.dtype, device=device)
        for part, rows in zip(self.held.split(HELD_AT_ONCE), torch.from_numpy(used).split(HELD_AT_ONCE), strict=True):
            part.copy_(self.cache.gather(rows))

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        if self.cache and self.held is None:
            batch["image_tokens"] = self.cache.gather(batch.pop("image_row"))  # (B, N, Dv)
        return batch

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        if self.held is not None:
            batch["image_tokens"] = self.held[batch.pop("image_row")]  # (B, N, Dv)
        return batch

    def sample_pixels(self) -> Tensor:
        """Pixel values (B, 3, H, W) of the first pictures, to measure the encoder with."""
        table = next(table for table in self.tables.values() if len(table))
        return torch.stack([read_picture(table, row, self.transform) for row in range(min(8, len(table)))])

    def labelled(self, splits: tuple[str, ...]) -> bool:
        """Whether these splits come with answers, so that they can be scored here."""
        return all(any(map(any, self.tables[split]["answers"].to_pylist())) for split in splits)

    def train_dataloader(self) -> DataLoader:
        return self._shuffled(self.questions(self.task.train, labelled_only=True), self.batch_size)

    def search_dataloader(self) -> DataLoader:
        """Batches of the search split, on which sampled arms are scored."""
        return self._shuffled(self.questions(self.pick), self.search_batch_size)

    def val_dataloader(self) -> list[DataLoader]:
        return [self._in_order(self.questions((split,))) for split in self.task.validate]

    def test_dataloader(self) -> list[DataLoader]:
        return [self._in_order(self.questions((split,))) for split in self.test]

    def _shuffled(self, dataset: Questions, batch_size: int) -> DataLoader:
        if self.bucket_by_length:
            lengths = dataset.text_lengths()
            sampler = LikeLengths(lengths, batch_size, self._rank, self._world_size, self.seed)
            return self._loader(Batches(dataset), None, sampler)
        sampler = DistributedSampler(dataset, self._world_size, self._rank, shuffle=True, seed=self.seed)
        return self._loader(dataset, batch_size, sampler)

    def _in_order(self, dataset: Dataset) -> DataLoader:
        # Every row once: DistributedSampler would pad the ranks to equal length with rows that then count twice.
        return self._loader(Subset(dataset, range(self._rank, len(dataset), self._world_size)), self.batch_size)

    def _loader(self, dataset: Dataset, batch_size: int | None, sampler: Sampler | None = None) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=self.collate,
            generator=torch.Generator(),  # it seeds the workers; the global one would be moved on, and dropout with it
        )

    def _picture_hashes(self, split: str, cache: TokenCache) -> list[str]:
        path = self.data_root / f"{self.task.files}_{split}.arrow"
        return picture_hashes(path, self.tables[split], cache.folder.parent / "pictures")

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return float("inf")  # the host's memory: the pictures lie there anyway, as pages of the files
