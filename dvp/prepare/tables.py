"""Output files that appear together or not at all, and the account of what went into them."""

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from dvp.errors import UserError
from dvp.images import TRAITS

# A record batch is full at so many bytes of images or so many rows, which bounds the memory and the number of batches.
BATCH_BYTES = 16 * 2**20
BATCH_ROWS = 1024
MOST_MISSING = 0.01  # of the images of a table


@dataclass(frozen=True)
class Options:
    """What the user may choose; see `dvp.prepare.convert`."""

    seed: int
    min_answer_count: int
    rest_val_images: int
    allow_missing_images: bool


@dataclass
class Account:
    """What went into one table. Questions read = kept + unlabelled + imageless."""

    table: str
    images: int = 0
    questions: int = 0
    kept: int = 0
    unlabelled: int = 0  # questions dropped because none of their answers is in the vocabulary
    imageless: int = 0  # questions dropped because their image file is missing
    missing_images: int = 0
    seen: Counter = field(default_factory=Counter)  # pictures by what is odd in them, a key of TRAITS


HEADINGS = ("table", "images", "questions", "kept", "dropped: no known answer", "dropped: no image", "missing images")


class Tables:
    """Files in `data_root`, visible when the `with` block ends well and removed when it does not."""

    def __init__(self, data_root: str):
        self.root = Path(data_root)
        self.accounts: list[Account] = []
        self._names: list[str] = []

    def __enter__(self) -> "Tables":
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"data_root={str(self.root)!r} cannot be made ({error.strerror}): choose another."
            ) from error
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            for name in self._names:
                os.replace(self._temporary(name), self.root / name)
            return
        for name in self._names:
            self._temporary(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            cause = "the disk is full, free some space" if full else f"{error}; mend that and convert again"
            raise UserError(f"Converting into {self.root} stopped and left nothing behind: {cause}.") from error

    def write(self, name: str, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> None:
        """Nothing; the rows, each with its `image` bytes, go to `<name>.arrow` one record batch at a time."""
        with open(self._open(f"{name}.arrow"), "wb") as file:
            with pa.ipc.new_file(file, schema) as writer:
                for batch in _batches(rows):
                    writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
            file.flush()
            os.fsync(file.fileno())

    def write_answers(self, name: str, answers: list[str]) -> None:
        """Nothing; the vocabulary goes to `<name>_answers.json`, a JSON list in label order."""
        with open(self._open(f"{name}_answers.json"), "w", encoding="utf-8") as file:
            json.dump(answers, file, ensure_ascii=False, indent=0)
            file.flush()
            os.fsync(file.fileno())

    def _open(self, name: str) -> Path:
        self._names.append(name)
        return self._temporary(name)

    def _temporary(self, name: str) -> Path:
        return self.root / f"{name}.tmp"


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch, size = [], 0
    for row in rows:
        batch.append(row)
        size += len(row["image"])
        if size >= BATCH_BYTES or len(batch) == BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def present_images(
    image_ids: list[Any], path_of: Callable[[Any], Path], account: Account, allow_missing_images: bool
) -> list[Any]:
    """The ids whose image file is there, in the order given; the others are counted.

    Raises UserError when more than 1 % are missing and that is not allowed.
    """
    present = [image_id for image_id in image_ids if path_of(image_id).is_file()]
    account.missing_images = len(image_ids) - len(present)
    if account.missing_images > MOST_MISSING * len(image_ids) and not allow_missing_images:
        first = path_of(next(image_id for image_id in image_ids if not path_of(image_id).is_file()))
        raise UserError(
            f"{account.missing_images} of the {len(image_ids)} images of {account.table} are missing, first {first}: "
            "put them in place, or leave their questions out with allow_missing_images=True."
        )
    return present


def report(accounts: list[Account]) -> str:
    """A plain-text table, one line per output table, and a line for each oddity of a table's pictures."""
    lines = [HEADINGS, *(tuple(map(str, vars(account).values()))[: len(HEADINGS)] for account in accounts)]
    first, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
    layout = "  ".join([f"{{:<{first}}}", *(f"{{:>{width}}}" for width in widths)])
    odd = [
        f"{account.table}: {account.seen[name]} pictures {what}."
        for account in accounts
        for name, what in TRAITS.items()
        if account.seen[name]
    ]
    return "\n".join([*(layout.format(*line) for line in lines), *odd])
