"""Output files that appear together or not at all, and the account of what went into them."""

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from dvp.errors import UserError
from dvp.images import TRAITS
from dvp.manifest import VERSION, alone_in, hash_of, image_hash, listing_name, manifest_name, put_in_place, staged

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
    """The files of one conversion, in a folder of their own until all are complete."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.accounts: list[Account] = []
        self.files: dict[str, dict[str, Any]] = {}  # what the manifest tells of each
        self.pictures: dict[str, list[str]] = {}  # by table the hash of every row's, empty where it has none

    @property
    def root(self) -> Path:
        """The folder that the files are meant for."""
        return self.folder.parent

    def write(self, name: str, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> None:
        """Nothing; the rows, each with its `image` bytes, go to `<name>.arrow` one record batch at a time."""
        path, count, hashes = self.folder / f"{name}.arrow", 0, []
        with open(path, "xb") as file:
            with pa.ipc.new_file(file, schema) as writer:
                for batch in _batches(rows):
                    writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
                    count += len(batch)
                    hashes += [image_hash(row["image"]) if row["image"] else "" for row in batch]
            _sync(file)
        places = _picture_places(path)
        self._note(path, rows=count, pictures=places, rest=hash_of(path, places))
        self.pictures[path.name] = hashes

    def write_answers(self, name: str, answers: list[str]) -> None:
        """Nothing; the vocabulary goes to `<name>_answers.json`, a JSON list in label order."""
        self._note(self._dump(f"{name}_answers.json", answers))

    def seal(self, files: str, told: dict[str, Any]) -> None:
        """Nothing; the listing of picture hashes is written, and then the manifest with what is `told` beside."""
        self._note(self._dump(listing_name(files), self.pictures))
        self._dump(manifest_name(files), {"version": VERSION} | told | {"files": self.files})

    def _note(self, path: Path, **about: Any) -> None:
        self.files[path.name] = {"bytes": path.stat().st_size, "hash": hash_of(path)} | about

    def _dump(self, name: str, content: Any) -> Path:
        path = self.folder / name
        with open(path, "x", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=0)
            _sync(file)
        return path


def make_root(data_root: str) -> Path:
    """The folder of tables, made where it is not there; UserError where it cannot be."""
    root = Path(data_root)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data_root={str(root)!r} cannot be made ({error.strerror}): choose another.") from error
    return root


@contextmanager
def writing(data_root: str, files: str, told: dict[str, Any]) -> Iterator[Tables]:
    """Files in `data_root`, put in place when the `with` block ends well, with a manifest that has what is `told`.

    files: what the names of the task's tables begin with. Raises UserError for a folder that cannot be made or that
    another conversion writes into, and for a full disk; nothing is left behind then.
    """
    root = make_root(data_root)
    try:
        with alone_in(root), staged(root, files) as folder:
            tables = Tables(folder)
            yield tables
            tables.seal(files, told)
            put_in_place(folder, root, files)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cause = "the disk is full, free some space" if full else f"{error}; mend that and convert again"
        raise UserError(f"Converting into {root} stopped and left nothing behind: {cause}.") from error


def _picture_places(path: Path) -> list[tuple[int, int]]:
    """Where the bytes of pictures lie in a table: (start, bytes) of each record batch."""
    file = pa.memory_map(str(path)).read_buffer()
    reader = pa.ipc.open_file(file)
    batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    buffers = (batch.column("image").buffers()[2] for batch in batches)
    return [(buffer.address - file.address, buffer.size) for buffer in buffers if buffer is not None and buffer.size]


def _sync(file: IO) -> None:
    file.flush()
    os.fsync(file.fileno())


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
