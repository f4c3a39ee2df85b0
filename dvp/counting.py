"""Things in words: how many there are, and how far a loop over them is."""

import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

from tqdm import tqdm

Thing = TypeVar("Thing")
SILENT = 60  # seconds without a line


def counted(things: Collection[Thing], what: str) -> Iterator[Thing]:
    """The things, one by one; how many are through is said as `what`: by a bar on a terminal, else a line a minute."""
    if sys.stderr.isatty():
        yield from tqdm(things, what)
        return
    total, said = len(things), time.monotonic()
    for number, thing in enumerate(things):
        if time.monotonic() - said >= SILENT:
            said = time.monotonic()
            print(f"{what}: {number} of {total}", file=sys.stderr, flush=True)
        yield thing


def number_of(count: int, noun: str) -> str:
    """So many of what the noun names: "1 image", "3300 images"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
