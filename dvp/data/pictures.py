"""The distinct pictures of the tables, for encoding each of them once."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dvp.data.arrow import read_picture
from dvp.errors import UserError
from dvp.files import write_json
from dvp.token_cache import TokenCache, image_hash

Place = tuple[pa.Table, int]  # a picture's table and row


def picture_hashes(path: Path, table: pa.Table, notes: Path) -> list[str]:
    """The hash of every row's picture; noted under `notes` by the file's size and time, so that it is read but once."""
    stat = path.stat()
    note = notes / f"{path.stem}-{stat.st_size}-{stat.st_mtime_ns}.json"
    if note.is_file():
        return json.loads(note.read_text(encoding="utf-8"))
    hashes = [image_hash(table["image"][row].as_py()) for row in tqdm(range(len(table)), f"{path.name}: pictures")]
    write_json(note, hashes)
    return hashes


def missing_pictures(cache: TokenCache, tables: Sequence[tuple[pa.Table, list[str]]]) -> dict[str, Place]:
    """The pictures that the cache has not, each once, by hash; `tables` come with the hashes of their rows."""
    places = {hash_: (table, row) for table, hashes in tables for row, hash_ in enumerate(hashes)}
    return {hash_: place for hash_, place in places.items() if hash_ not in cache.rows}


def encode_pictures(
    cache: TokenCache,
    places: dict[str, Place],
    transform: Callable[[Image.Image], Tensor],
    encode: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    num_workers: int,
    progress: bool = True,
) -> None:
    """Add the tokens of these pictures to the cache; `encode` maps (B, 3, H, W) to (B, N, Dv)."""
    hashes = list(places)
    # A loader draws from its generator: from the global one, and a run's dropout would depend on what was encoded.
    options = {"num_workers": num_workers, "generator": torch.Generator()}
    loader = DataLoader(_Pictures(list(places.values()), transform), batch_size, **options)
    batches = (hashes[start : start + batch_size] for start in range(0, len(hashes), batch_size))
    pixels = tqdm(loader, "image tokens", disable=not (progress and hashes))
    cache.add((batch, encode(pixel_values)) for batch, pixel_values in zip(batches, pixels, strict=True))


def cache_rows(cache: TokenCache, hashes: list[str]) -> np.ndarray:
    """The row in the cache of every picture of a table.

    Raises UserError for a picture that is not there: this rank does not see what the others have written.
    """
    if not cache.rows.keys() >= set(hashes):
        raise UserError(
            f"{cache.folder} lacks pictures that were just encoded: where nodes share no disk, run `python run.py "
            "encode` on each of them first."
        )
    return np.array([cache.rows[hash_] for hash_ in hashes], dtype=np.int64)


class _Pictures(Dataset):
    def __init__(self, places: list[Place], transform: Callable[[Image.Image], Tensor]):
        self.places, self.transform = places, transform

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: int) -> Tensor:
        table, row = self.places[item]
        return read_picture(table, row, self.transform)
