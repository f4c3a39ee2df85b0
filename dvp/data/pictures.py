"""The distinct pictures of the tables, for encoding each of them once."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dvp.data.arrow import read_picture
from dvp.files import write_json
from dvp.token_cache import TokenCache, image_hash


def picture_hashes(path: Path, table: pa.Table, notes: Path) -> list[str]:
    """The hash of every row's picture; noted under `notes` by the file's size and time, so that it is read but once."""
    stat = path.stat()
    note = notes / f"{path.stem}-{stat.st_size}-{stat.st_mtime_ns}.json"
    if note.is_file():
        return json.loads(note.read_text(encoding="utf-8"))
    hashes = [image_hash(table["image"][row].as_py()) for row in tqdm(range(len(table)), f"{path.name}: pictures")]
    write_json(note, hashes)
    return hashes


def encode_missing(
    cache: TokenCache,
    tables: Sequence[tuple[pa.Table, list[str]]],
    transform: Callable[[Image.Image], Tensor],
    encode: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Encode this rank's share of the pictures that the cache has not; `encode` maps (B, 3, H, W) to (B, N, Dv)."""
    places = {hash_: (table, row) for table, hashes in tables for row, hash_ in enumerate(hashes)}
    missing = [hash_ for hash_ in places if hash_ not in cache.rows]
    if not missing:
        return
    if rank == 0:
        cache.check_room(len(missing))
    share = missing[rank::world_size]
    pictures = _Pictures([places[hash_] for hash_ in share], transform)
    loader = DataLoader(pictures, batch_size, num_workers=num_workers)
    batches = (share[start : start + batch_size] for start in range(0, len(share), batch_size))
    cache.add(
        (hashes, encode(pixels))
        for hashes, pixels in zip(batches, tqdm(loader, "image tokens", disable=rank > 0), strict=True)
    )


def cache_rows(cache: TokenCache, hashes: list[str]) -> np.ndarray:
    """The row in the cache of every picture of a table."""
    return np.array([cache.rows[hash_] for hash_ in hashes], dtype=np.int64)


class _Pictures(Dataset):
    def __init__(self, places: list[tuple[pa.Table, int]], transform: Callable[[Image.Image], Tensor]):
        self.places, self.transform = places, transform

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: int) -> Tensor:
        table, row = self.places[item]
        return read_picture(table, row, self.transform)
