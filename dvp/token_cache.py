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
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dvp.errors import UserError
from dvp.files import remove, write_json, write_whole

SHARD_BYTES = 1 << 29


def image_hash(data: bytes) -> str:
    """The name of an image in a cache, from its bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class TokenCache:
    """The tokens of images, (N, Dv) each, memory-mapped from the shards of one folder.

    `about` holds what decides the numbers; it becomes the folder's name under `root` and stands in its about.json.
    """

    def __init__(self, root: Path, about: dict[str, str], shape: tuple[int, int], dtype: torch.dtype):
        self.shape, self.dtype = shape, dtype
        about = about | {"shape": list(shape), "dtype": str(dtype)}
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = Path(root) / key
        self.rows: dict[str, int] = {}  # image hash -> row over all shards
        self.shards: list[Tensor] = []
        self.starts: list[int] = []  # first row of each shard
        if not (self.folder / "about.json").is_file():
            write_json(self.folder / "about.json", about)
        self.open()

    @property
    def image_bytes(self) -> int:
        """Bytes that the tokens of one image take."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def open(self) -> None:
        """Map all whole shards; a truncated or altered one is named and removed, to be encoded anew."""
        self.rows, self.shards, self.starts = {}, [], []
        for listing in sorted(self.folder.glob("*.shard.json")):
            images, checksum = (json.loads(listing.read_text(encoding="utf-8"))[key] for key in ("images", "crc32"))
            path = listing.with_name(listing.name.replace(".shard.json", ".tokens"))
            whole = path.is_file() and path.stat().st_size == len(images) * self.image_bytes
            data = np.memmap(path, np.uint8, "c") if whole else None
            if data is None or zlib.crc32(data) != checksum:
                print(f"{path} is damaged: it is removed and its {len(images)} images are encoded again.")
                remove(listing)
                remove(path)
                continue
            start = sum(map(len, self.shards))
            self.rows |= {image: start + row for row, image in enumerate(images)}
            self.starts.append(start)
            self.shards.append(torch.from_numpy(data).view(self.dtype).view(len(images), *self.shape))

    def add(self, encoded: Iterable[tuple[list[str], Tensor]]) -> None:
        """Write batches of (image hashes, tokens (B, N, Dv)) as shards."""
        per_shard = max(1, SHARD_BYTES // self.image_bytes)
        images: list[str] = []
        tokens: list[Tensor] = []
        for hashes, batch in encoded:
            images += hashes
            tokens.append(batch.to(self.dtype).cpu())
            if len(images) >= per_shard:
                self._write_shard(images, torch.cat(tokens))
                images, tokens = [], []
        if images:
            self._write_shard(images, torch.cat(tokens))

    def gather(self, rows: Tensor) -> Tensor:
        """The tokens (B, N, Dv) of the images in these rows, in one copy, pinned where a GPU will fetch them."""
        out = torch.empty((len(rows), *self.shape), dtype=self.dtype, pin_memory=torch.cuda.is_available())
        shard_of = np.searchsorted(self.starts, rows.numpy(), side="right") - 1
        for shard in np.unique(shard_of):
            places = torch.from_numpy(np.flatnonzero(shard_of == shard))
            out[places] = self.shards[shard][rows[places] - self.starts[shard]]
        return out

    def check_room(self, count: int) -> None:
        """Print what `count` images take; raise UserError where the disk has not room for them."""
        need, free = count * self.image_bytes, shutil.disk_usage(self.folder).free
        print(f"Encoding {count} images into {self.folder}: {need / 1e9:.2f} GB ({free / 1e9:.0f} GB free).")
        if need > free:
            raise UserError(
                f"The image tokens need {need / 1e9:.1f} GB but {self.folder} has {free / 1e9:.1f} GB free: "
                "make room, or use image_tokens=live."
            )

    @contextmanager
    def building(self) -> Iterator[None]:
        """Keep other runs from building this cache at the same time; they wait and then find it built."""
        with open(self.folder / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"Another run is building {self.folder}: waiting for it.", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            self.open()
            yield

    def _write_shard(self, images: Sequence[str], tokens: Tensor) -> None:
        name = f"{time.time_ns():x}-{uuid.uuid4().hex[:8]}"
        data = tokens.contiguous().view(torch.uint8).numpy().reshape(-1)
        write_whole(self.folder / f"{name}.tokens", lambda place: data.tofile(place))
        # The listing comes last: a shard without one does not exist.
        write_json(self.folder / f"{name}.shard.json", {"images": list(images), "crc32": zlib.crc32(data)})
