"""The distinct pictures of the tables, for encoding each of them once."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dvp.counting import counted
from dvp.data.arrow import Table, picture_bytes, place_of, read_picture
from dvp.data.token_cache import TokenCache
from dvp.errors import UserError
from dvp.files import locked, remove_leftovers, write_json, writing_to
from dvp.manifest import image_hash, manifest_beside

FORMAT = 1  # of a note of hashes; older ones are the list alone
LOCK = ".lock"  # in the folder of notes, while one is read or written
Place = tuple[Table, int]  # a picture's table and row


def picture_hashes(table: Table, notes: Path) -> list[str]:
    """The hash of every row's picture; noted under `notes` by the file's size and time, so that it is read but once.

    Raises UserError for a picture that is not the one that was converted.
    """
    if table.chosen is not None:
        hashes = picture_hashes(Table(table.path), notes)
        return [hashes[row] for row in table.chosen.tolist()]
    note = _note(table.path, notes)
    with writing_to(note):
        notes.mkdir(parents=True, exist_ok=True)
        with locked(notes / LOCK):  # who waits finds it noted
            remove_leftovers(notes)
            if (noted := _read_note(note, len(table))) is not None:
                return noted
            rows = counted(range(len(table)), f"{table.path.name}: pictures")
            hashes = [image_hash(picture_bytes(table, row)) for row in rows]
            require_converted(table, hashes)
            write_json(note, {"format": FORMAT, "hashes": hashes})
    return hashes


def noted_hashes(table: Table, notes: Path) -> list[str] | None:
    """What `picture_hashes` has noted of a table; None where it has not read its pictures yet."""
    whole = table if table.chosen is None else Table(table.path)
    hashes = _read_note(_note(table.path, notes), len(whole))
    return hashes and [hashes[row] for row in table.chosen.tolist()] if table.chosen is not None else hashes


def require_converted(table: Table, hashes: list[str]) -> None:
    """Nothing, or UserError where a row of a whole table has another picture than the one that was converted."""
    manifest = manifest_beside(table.path)
    for row, (found, made) in enumerate(
        zip(hashes, manifest.pictures()[table.path.name], strict=True) if manifest else ()
    ):
        if found != made:
            raise UserError(
                f"The picture {place_of(table, row)} is not the one that was converted, the file is damaged: put back "
                "a sound copy, or convert the raw data again."
            )


def _note(path: Path, notes: Path) -> Path:
    stat = path.stat()
    return notes / f"{path.stem}-{stat.st_size}-{stat.st_mtime_ns}.json"


def _read_note(note: Path, count: int) -> list[str] | None:
    """The hashes that are noted; None where there are none or not as many as the table has rows."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # a note that is damaged is as good as none
        return None
    if isinstance(content, dict):
        hashes = content.get("hashes") if content.get("format") == FORMAT else None
    else:
        hashes = content  # of before there were formats
    known = isinstance(hashes, list) and len(hashes) == count and all(isinstance(one, str) for one in hashes)
    return hashes if known else None


def missing_pictures(cache: TokenCache, tables: Sequence[tuple[Table, list[str]]]) -> dict[str, Place]:
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
    pixels = counted(loader, "image tokens") if progress and hashes else loader
    for batch, pixel_values in zip(batches, pixels, strict=True):
        cache.add(batch, encode(pixel_values))
    cache.flush()


class CachedPictures:
    """The pictures of a run's tables by number, and their tokens.

    numbers: split -> the number of every row's picture. known: (pictures,) bool, whether the cache has it; shared with
    the processes that load data, which read only what it lacks. encode: pixel values (B, 3, H, W) to tokens.
    """

    def __init__(self, cache: TokenCache, hashes: dict[str, list[str]], encode: Callable[[Tensor], Tensor]):
        self.cache, self.encode = cache, encode
        number = {hash_: place for place, hash_ in enumerate(dict.fromkeys(itertools.chain(*hashes.values())))}
        self.hashes = list(number)
        self.numbers = {split: np.array([number[hash_] for hash_ in found], int) for split, found in hashes.items()}
        self.known = torch.empty(len(number), dtype=torch.bool).share_memory_()
        self.look()

    def look(self) -> None:
        """See which pictures the cache has."""
        self.known[:] = torch.tensor([hash_ in self.cache.rows for hash_ in self.hashes], dtype=torch.bool)

    def require_all(self) -> None:
        """Raise UserError for a picture that the cache has not: this rank does not see what the others have written."""
        if not self.known.all():
            raise UserError(
                f"{self.cache.folder} lacks pictures that were just encoded: where nodes share no disk, run `python "
                "run.py encode` on each of them first."
            )

    def rows(self, numbers: Tensor) -> Tensor:
        """Their rows in the cache (B,)."""
        return torch.tensor([self.cache.rows[self.hashes[number]] for number in numbers.tolist()], dtype=torch.long)

    def tokens(self, numbers: Tensor, met: Tensor | None, pixel_values: Tensor | None) -> Tensor:
        """The tokens (B, N, Dv) of the pictures `numbers`. `met` (M,) are those that come with pixels (M, 3, H, W).

        What the cache still lacks of these is encoded and added.
        """
        if met is not None:
            new = [place for place, number in _first_places(met) if not self.known[number]]
            if new:
                self.cache.add([self.hashes[number] for number in met[new].tolist()], self.encode(pixel_values[new]))
                self.known[met[new]] = True
        return self.cache.gather(self.rows(numbers))


def _first_places(numbers: Tensor) -> list[tuple[int, int]]:
    """Where each distinct number stands first, in order."""
    first: dict[int, int] = {}
    for place, number in enumerate(numbers.tolist()):
        first.setdefault(number, place)
    return [(place, number) for number, place in first.items()]


class _Pictures(Dataset):
    def __init__(self, places: list[Place], transform: Callable[[Image.Image], Tensor]):
        self.places, self.transform = places, transform

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: int) -> Tensor:
        table, row = self.places[item]
        return read_picture(table, row, self.transform)
