"""The LightningDataModule: which split feeds training, validation, test and the search."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from dvp.data.arrow import check_answers, read_picture
from dvp.data.held_out import open_splits
from dvp.data.lengths import Batches, LikeLengths
from dvp.data.pictures import CachedPictures, Place, encode_pictures, missing_pictures, picture_hashes
from dvp.data.shuffled import Shares, Shuffled
from dvp.data.token_cache import NotNow, TokenCache
from dvp.data.told import Told
from dvp.data.workers import outlive_signals
from dvp.errors import UserError
from dvp.tasks import Task

HELD_AT_ONCE = 1024  # pictures copied to the device at a time


class Rows(Protocol):
    """A dataset of questions: a row is a dict that the reader's collate takes."""

    lengths: np.ndarray  # of their texts, in order
    counted: np.ndarray  # over how much the loss of each is averaged, in order
    kind: str  # what they are called

    def __len__(self) -> int: ...
    def __getitem__(self, item: int) -> dict[str, Any]: ...
    def question_ids(self) -> list[Any]:
        """The ids of all questions, in order."""


class Reader(Protocol):
    """What a kind of task makes of its tables."""

    columns: tuple[str, ...]  # that they must have
    answers: list[str]  # in label order
    transform: Callable[[Image.Image], Tensor] | None  # from a picture to pixels (3, H, W); None: a blind run
    max_length: int  # of a text, in tokens
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    groups: str  # what a question is grouped by

    def dataset(self, tables: dict[str, pa.Table], purpose: str, **pictures: Any) -> Rows:
        """The questions of these tables, by split, for train, search, validate or test."""

    def count_cut(self, rows: Rows) -> int:
        """How many of the texts are longer than max_length, and so are cut."""

    def labelled(self, table: pa.Table) -> bool:
        """Whether a table comes with answers, so that it can be scored here."""

    def told(self, rows: Rows, item: int) -> Told:
        """One of these rows as people read it."""


class QuestionData(pl.LightningDataModule):
    """The splits of one task, opened (and missed) at construction.

    reader: what makes datasets and batches of its tables. pick: the splits whose score rewards the search; batch_size:
    rows per device and forward pass, of which an update takes `passes`; by_length: batches hold texts of like length.
    stages: fit, test or both; tables that none of them reads are not opened.
    """

    def __init__(
        self,
        task: Task,
        data_root: str,
        reader: Reader,
        *,
        pick: tuple[str, ...],
        test: tuple[str, ...],
        stages: tuple[str, ...] = ("fit", "test"),
        batch_size: int,
        search_batch_size: int,
        passes: int = 1,
        by_length: bool = False,
        num_workers: int = 8,
        seed: int = 0,
    ):
        super().__init__()
        self.task, self.reader, self.pick, self.test = task, reader, pick, test
        self.answers = reader.answers
        self.batch_size, self.search_batch_size = batch_size, search_batch_size
        self.passes, self.by_length = passes, by_length
        self.num_workers, self.seed = num_workers, seed
        splits = dict.fromkeys(split for stage in stages for split in self.splits(stage))
        self.data_root = Path(data_root)
        self.position = (0, 0)  # epoch, and its passes that are done, from which training goes on
        self.truncated: dict[str, int] = {}  # what was read -> texts cut
        self.tables = open_splits(data_root, task, splits, reader.columns, seed)
        check_answers(self.tables.values(), self.answers)
        self.pictures: CachedPictures | None = None  # None: batches bring pixels
        self.held: Tensor | None = None  # the tokens of all pictures, on the device
        self.made: dict[tuple, Rows] = {}  # datasets, by what they are of: to make one takes a while
        for needed, purpose in ((task.train, "train"), (pick, "search")) if "fit" in stages else ():
            if not len(self.questions(needed, purpose)):
                tables = " and ".join(f"{task.files}_{split}.arrow" for split in needed)
                raise UserError(f"{tables} in {data_root} hold no question to use: convert the raw data again.")

    def questions(self, splits: tuple[str, ...], purpose: str = "validate") -> Rows:
        """The questions of these splits, in the order of the tables. purpose: train, search, validate or test."""
        if (splits, purpose, self.pictures) not in self.made:
            tables = {split: self.tables[split] for split in splits}
            pictures = {}
            if self.pictures is not None:
                pictures = {"numbers": [self.pictures.numbers[split] for split in splits], "known": self.pictures.known}
            self.made[splits, purpose, self.pictures] = self.reader.dataset(tables, purpose, **pictures)
        return self.made[splits, purpose, self.pictures]

    def _read(self, splits: tuple[str, ...], purpose: str) -> Rows:
        """The questions of these splits; when they are first read it is said how many of their texts are cut."""
        rows = self.questions(splits, purpose)
        what = f"{' and '.join(splits)} {rows.kind}"
        if what not in self.truncated and self._rank == 0 and self.reader.max_length is not None:
            self.truncated[what] = self.reader.count_cut(rows)
            if cut := self.truncated[what]:
                print(f"{cut} of {len(rows)} {what} are over {self.reader.max_length} tokens and cut.")
        return rows

    def splits(self, stage: str) -> tuple[str, ...]:
        """The splits that a fit or a test reads."""
        fit = (*self.task.train, *self.task.validate, *self.pick)
        return tuple(dict.fromkeys(self.test if stage == "test" else fit))

    def use_cache(self, cache: TokenCache, encode: Callable[[Tensor], Tensor], splits: tuple[str, ...]) -> None:
        """From now on hand out image tokens of `cache`, which lacks none once all ranks have encoded what is missing.

        encode: pixel values (B, 3, H, W) to image tokens (B, N, Dv). Raises NotNow, on all ranks, for a full disk.
        """
        strategy = self.trainer.strategy
        hashes = {split: self._picture_hashes(split, cache) for split in splits}
        with cache.building() if self._rank == 0 else nullcontext():
            strategy.barrier("another run may have built the cache")
            cache.open()
            missing = self._missing(cache, hashes)
            # Rank 0 looks for all, before any of them writes: they might disagree, and wait for each other.
            if shortage := strategy.broadcast(cache.shortage(len(missing)) if self._rank == 0 else ""):
                raise NotNow(shortage)
            self._encode(cache, dict(itertools.islice(missing.items(), self._rank, None, self._world_size)), encode)
            strategy.barrier("all ranks have written their share")
        cache.open()
        self.pictures = CachedPictures(cache, hashes, encode)
        self.pictures.require_all()

    def grow_cache(self, cache: TokenCache, encode: Callable[[Tensor], Tensor], splits: tuple[str, ...]) -> None:
        """From now on hand out image tokens of `cache`; a picture that it lacks is encoded when a batch first meets it.

        For one rank, which is `cache.building()`. Raises NotNow for a full disk.
        """
        hashes = {split: self._picture_hashes(split, cache) for split in splits}
        if shortage := cache.shortage(len(self._missing(cache, hashes)), as_met=True):
            raise NotNow(shortage)
        self.pictures = CachedPictures(cache, hashes, encode)

    def encode_the_rest(self) -> None:
        """Encode what no batch has met while the cache grew."""
        pictures = self.pictures
        hashes = {split: [pictures.hashes[n] for n in numbers] for split, numbers in pictures.numbers.items()}
        self._encode(pictures.cache, self._missing(pictures.cache, hashes), pictures.encode)
        pictures.look()

    def _missing(self, cache: TokenCache, hashes: dict[str, list[str]]) -> dict[str, Place]:
        return missing_pictures(cache, [(self.tables[split], found) for split, found in hashes.items()])

    def _encode(self, cache: TokenCache, places: dict[str, Place], encode: Callable[[Tensor], Tensor]) -> None:
        options = {"batch_size": self.batch_size, "num_workers": self.num_workers, "progress": self._rank == 0}
        encode_pictures(cache, places, self.reader.transform, encode, **options)

    def hold_on(self, device: torch.device) -> None:
        """Hold the tokens of all pictures of the run on the device from now on, if they leave it half of its memory."""
        count, cache = len(self.pictures.hashes), self.pictures.cache
        need, free = count * cache.image_bytes, _free_bytes(device)
        if need > free / 2:
            print(f"The image tokens stay on the host: they take {need / 1e9:.1f} of {free / 1e9:.1f} GB on {device}.")
            return
        self.held = torch.empty((count, *cache.shape), dtype=cache.dtype, device=device)
        for part, numbers in zip(self.held.split(HELD_AT_ONCE), torch.arange(count).split(HELD_AT_ONCE), strict=True):
            part.copy_(cache.gather(self.pictures.rows(numbers)))

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        if self.pictures and self.held is None:
            new = batch.pop("met", None), batch.pop("pixel_values", None)
            batch["image_tokens"] = self.pictures.tokens(batch.pop("picture"), *new)  # (B, N, Dv)
        return batch

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        if self.held is not None:
            batch["image_tokens"] = self.held[batch.pop("picture")]  # (B, N, Dv)
        return batch

    def sample_pixels(self) -> Tensor:
        """Pixel values (B, 3, H, W) of the first pictures, to measure the encoder with."""
        table = next(table for table in self.tables.values() if len(table))
        return torch.stack([read_picture(table, row, self.reader.transform) for row in range(min(8, len(table)))])

    def labelled(self, splits: tuple[str, ...]) -> bool:
        """Whether these splits come with answers, so that they can be scored here."""
        return all(self.reader.labelled(self.tables[split]) for split in splits)

    def train_dataloader(self) -> DataLoader:
        rows = self._read(self.task.train, "train")
        loader = self._shuffled(rows, self.batch_size, passes=self.passes, counted=rows.counted)
        loader.sampler.set_epoch(*self.position)
        return loader

    def search_dataloader(self) -> DataLoader:
        """Batches of the search split, on which sampled arms are scored."""
        return self._shuffled(self._read(self.pick, "search"), self.search_batch_size)

    def search_batches(self, skip: int) -> Iterator[dict[str, Any]]:
        """The batches of the search split again and again, shuffled anew each time, without the first `skip`."""
        loader = self.search_dataloader()
        first, start = divmod(skip, len(loader))
        for epoch in itertools.count(first):
            loader.sampler.set_epoch(epoch, start if epoch == first else 0)
            yield from loader

    def val_dataloader(self) -> list[DataLoader]:
        return [self._in_order(self._read((split,), "validate")) for split in self.task.validate]

    def test_dataloader(self) -> list[DataLoader]:
        return [self._in_order(self._read((split,), "test")) for split in self.test]

    def _shuffled(self, dataset: Rows, batch_size: int, **counting: Any) -> DataLoader:
        lengths = dataset.lengths if self.by_length else None
        ranks = {"rank": self._rank, "ranks": self._world_size}
        sampler = Shuffled(len(dataset), batch_size, seed=self.seed, lengths=lengths, **ranks, **counting)
        return self._loader(Shares(dataset, self.reader.collate), None, _as_it_is, sampler)

    def _in_order(self, dataset: Rows) -> DataLoader:
        if self.by_length:
            sampler = LikeLengths(dataset.lengths, self.batch_size, self._rank, self._world_size)
            return self._loader(Batches(dataset), None, self.reader.collate, sampler)
        # Every row once: DistributedSampler would pad the ranks to equal length with rows that then count twice.
        own = Subset(dataset, range(self._rank, len(dataset), self._world_size))
        return self._loader(own, self.batch_size, self.reader.collate)

    def _loader(
        self, dataset: Dataset, batch_size: int | None, collate: Callable[[Any], Any], sampler: Sampler | None = None
    ) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate,
            worker_init_fn=outlive_signals,
            generator=torch.Generator(),  # it seeds the workers; the global one would be moved on, and dropout with it
        )

    def _picture_hashes(self, split: str, cache: TokenCache) -> list[str]:
        return picture_hashes(self.tables[split], cache.folder.parent / "pictures")

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def _as_it_is(batch: dict[str, Any]) -> dict[str, Any]:
    return batch


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return float("inf")  # the host's memory: the pictures lie there anyway, as pages of the files
