"""Hashes of files and pictures: BLAKE2b of 128 bits, as `b2sum -l 128` has it."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

AT_ONCE = 2**20  # bytes


def image_hash(data: bytes) -> str:
    """The hash of a picture, from its bytes; it names the picture in a cache, too."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def hash_of(path: Path, without: Iterable[tuple[int, int]] = ()) -> str:
    """The hash of a file's bytes, but for the parts `without`: (start, bytes) in order."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        start = 0
        for left_out, size in (*without, (path.stat().st_size, 0)):
            file.seek(start)
            while start < left_out and (chunk := file.read(min(AT_ONCE, left_out - start))):
                digest.update(chunk)
                start += len(chunk)
            start = left_out + size
    return digest.hexdigest()
