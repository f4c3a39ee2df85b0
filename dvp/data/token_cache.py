"""Image tokens on disk: CLIP is frozen and its input deterministic, so each distinct image is encoded once.

A cache is a folder named by all that decides its numbers: encoder weights, transform and dtype. It holds shards, each a
raw array (`<name>.tokens`) and a JSON file that lists its images and its checksum. A shard is whole or absent, so a
broken run is simply continued; images are found by the hash of their bytes, so a changed image is a new one.

Legend: N tokens per image, Dv their width.
"""

import fcntl
import hashlib
import json
import shutil
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dvp.counting import number_of
from dvp.errors import UserError
from dvp.files import read_json, remove, remove_leftovers, require_fields, write_json, write_whole

SHARD_BYTES = 1 << 29
FORMAT = 1  # of a shard's listing and of about.json; older ones have none


class NotNow(UserError):
    """The cache cannot be built: the disk has no room or cannot be written, or another run is building it."""


class TokenCache:
    """The tokens of images, (N, Dv) each, memory-mapped from the shards of one folder.

    `about` holds what decides the numbers; it becomes the folder's name under `root` and stands in its about.json.
    """

    def __init__(self, root: Path, about: dict[str, str], shape: tuple[int, int], dtype: torch.dtype):
        self.shape, self.dtype = shape, dtype
        self.about = about | {"shape": list(shape), "dtype": str(dtype)}
        key = hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = Path(root) / key
        self.rows: dict[str, int] = {}  # image hash -> row over all shards
        self.shards: list[np.ndarray] = []  # (images, bytes of one)
        self.starts: list[int] = []  # first row of each shard
        self.opened: set[Path] = set()  # their files
        self.held: list[str] = []  # images whose tokens lie in the last shard, which is not written yet

    @property
    def image_bytes(self) -> int:
        """Bytes that the tokens of one image take."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def claim(self) -> str:
        """Make the folder; returns why nothing can be written there, or nothing."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
            if not (self.folder / "about.json").is_file():
                write_json(self.folder / "about.json", {"format": FORMAT} | self.about)
        except (OSError, UserError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            return f"{self.folder} cannot be written ({reason}): make it writable, or use image_tokens=live."
        return ""

    def open(self) -> list[Path]:
        """Map the whole shards that are not mapped yet; returns the files of truncated and altered ones."""
        self.flush()
        damaged = []
        for listing in sorted(self.folder.glob("*.shard.json")):
            path = listing.with_name(listing.name.replace(".shard.json", ".tokens"))
            if path in self.opened:
                continue
            images = self._whole(listing, path)
            if images is None:
                damaged.append(path)
                continue
            start = sum(map(len, self.shards))
            self.rows |= {image: start + row for row, image in enumerate(images)}
            self.starts.append(start)
            self.shards.append(self._mapped(path))
        return damaged

    def add(self, images: Sequence[str], tokens: Tensor) -> None:
        """Take in the tokens (B, N, Dv) of a batch of images that were not there; a full shard is written.

        Until then they are read from memory; `flush` writes what there is. A batch lies in one shard: what is encoded
        after a kill comes in the batches in which it would have come, on which the last digits of tokens depend.
        """
        data = tokens.to(self.dtype).cpu().contiguous().view(torch.uint8).numpy().reshape(len(images), -1)
        if self.held and len(self.held) + len(images) > len(self.shards[-1]):
            self.flush()
        if not self.held:
            self.starts.append(sum(map(len, self.shards)))
            room = max(SHARD_BYTES // self.image_bytes, len(images))
            self.shards.append(np.empty((room, self.image_bytes), np.uint8))
        start = len(self.held)
        self.shards[-1][start : start + len(images)] = data
        self.rows |= {image: self.starts[-1] + row for row, image in enumerate(images, start)}
        self.held += images
        if len(self.held) == len(self.shards[-1]):
            self.flush()

    def flush(self) -> None:
        """Write what is held as a shard, and read it from there."""
        if self.held:
            self.shards[-1] = self._mapped(self._write_shard(self.held, self.shards[-1][: len(self.held)]))
            self.held = []

    def gather(self, rows: Tensor) -> Tensor:
        """The tokens (B, N, Dv) of the images in these rows, in one copy, pinned where a GPU will fetch them."""
        out = torch.empty((len(rows), *self.shape), dtype=self.dtype, pin_memory=torch.cuda.is_available())
        shards = np.searchsorted(self.starts, rows.numpy(), side="right") - 1
        places = out.view(torch.uint8).view(len(rows), self.image_bytes).numpy()
        for place, shard, row in zip(places, shards.tolist(), rows.tolist(), strict=True):
            place[:] = self.shards[shard][row - self.starts[shard]]
        return out

    def shortage(self, count: int, as_met: bool = False) -> str:
        """Print what `count` images take; returns why the disk has not room for them, or nothing.

        as_met: only those are encoded that batches will meet.
        """
        if not count:
            return ""
        need, free = count * self.image_bytes, shutil.disk_usage(self.folder).free
        images = number_of(count, "image")
        what = f"up to {images} that are not kept yet, as they are met," if as_met else images
        print(f"Encoding {what} into {self.folder}: {need / 1e9:.2f} GB ({free / 1e9:.0f} GB free).")
        if need <= free:
            return ""
        return (
            f"The image tokens need {need / 1e9:.1f} GB but {self.folder} has {free / 1e9:.1f} GB free: "
            "make room, or use image_tokens=live."
        )

    @contextmanager
    def building(self, wait: bool = True) -> Iterator[None]:
        """Keep other runs from building this cache at the same time; they wait and then find it built.

        Raises NotNow where another run is building it and `wait` is False. What is damaged, or left over from runs that
        broke while writing, is removed first, to be encoded anew.
        """
        with open(self.folder / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise NotNow(f"another run is building {self.folder}: start again when it is done.") from None
                print(f"Another run is building {self.folder}: waiting for it.", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            for path in self.open():
                print(f"{path} is damaged: it is removed and its images are encoded again.")
                remove(path.with_suffix(".shard.json"))
            for path in set(self.folder.glob("*.tokens")) - self.opened:
                remove(path)
            remove_leftovers(self.folder)
            try:
                yield
            finally:  # explicitly: processes that load data, forked meanwhile, have the file open too
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _whole(self, listing: Path, path: Path) -> list[str] | None:
        """The images of a shard, or None where it is damaged."""
        try:
            about = read_json(listing)
            about = {"format": 0} | about
            require_fields(listing, about, {"format": int, "images": list, "crc32": int}, "encode its images again")
        except UserError:
            return None
        if (
            about["format"] > FORMAT
            or not path.is_file()
            or path.stat().st_size != len(about["images"]) * self.image_bytes
        ):
            return None
        return about["images"] if zlib.crc32(np.memmap(path, np.uint8, "r")) == about["crc32"] else None

    def _mapped(self, path: Path) -> np.ndarray:
        self.opened.add(path)
        return np.memmap(path, np.uint8, "r").reshape(-1, self.image_bytes)

    def _write_shard(self, images: Sequence[str], data: np.ndarray) -> Path:
        name = f"{time.time_ns():x}-{uuid.uuid4().hex[:8]}"
        path = self.folder / f"{name}.tokens"
        write_whole(path, lambda place: data.tofile(place))
        about = {"format": FORMAT, "images": list(images), "crc32": zlib.crc32(data)}
        # The listing comes last: a shard without one does not exist.
        write_json(path.with_suffix(".shard.json"), about)
        return path
