"""Arrow tables, memory-mapped: one row is one image with the list of its questions."""

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from torch import Tensor

from dvp.errors import UserError
from dvp.tasks import Task


class Table:
    """The rows of an Arrow file, memory-mapped; has the attributes of the `pyarrow.Table` that it is.

    It pickles as its path, so that processes that load data map the file, too, instead of being sent its content.
    chosen: the rows that it has, in ascending order; None: all of the file.
    """

    def __init__(self, path: Path, chosen: np.ndarray | None = None):
        self.path, self.chosen = path.absolute(), chosen
        self.rows = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
        if chosen is not None:  # not copied: the pictures stay in the file
            runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
            self.rows = pa.concat_tables(self.rows.slice(run[0], len(run)) for run in runs)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> pa.ChunkedArray:
        return self.rows[column]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rows, name)

    def __reduce__(self) -> tuple[type["Table"], tuple[Path, np.ndarray | None]]:
        return Table, (self.path, self.chosen)


def open_table(
    data_root: str, files: str, split: str, columns: Iterable[str] = ("image", "questions", "answers")
) -> Table:
    """The table `<data_root>/<files>_<split>.arrow`, ours or one of the published scripts'.

    Raises UserError when the folder or file is missing, the file is truncated, or it is another task's.
    """
    path = table_path(data_root, files, split)
    if not data_root or not path.parent.is_dir():
        raise UserError(f"data_root={data_root!r} is not a folder: give the folder with the Arrow files, see DATA.md.")
    if not path.is_file():
        have = ", ".join(sorted(found.name for found in path.parent.glob("*.arrow"))) or "no Arrow file"
        raise UserError(
            f"{path} is missing ({path.parent} has {have}): make it with `python run.py convert`, see DATA.md."
        )
    try:
        table = Table(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is truncated or no Arrow file ({error}): convert the raw data again.") from error
    missing = set(columns) - set(table.column_names)
    if missing:
        raise UserError(f"{path} has no column {', '.join(sorted(missing))}: it is not one of this project's tables.")
    return table


def table_path(data_root: str, files: str, split: str) -> Path:
    """Where the table of a split lies."""
    return Path(data_root) / f"{files}_{split}.arrow"


def read_answers(data_root: str, task: Task) -> list[str]:
    """The answer vocabulary in label order: fixed by the task, stored beside the data, or read from label columns.

    Files of the published scripts have no vocabulary file; an answer that none of their rows carries is left empty.
    """
    if task.answers:
        return list(task.answers)
    stored = Path(data_root) / f"{task.files}_answers.json"
    if stored.is_file():
        return json.loads(stored.read_text(encoding="utf-8"))
    found = labelled_answers(data_root, task)
    if not found:
        raise UserError(
            f"{data_root} has neither {stored.name} nor a labelled row of {task.files}: convert the raw data again."
        )
    return [found.get(label, "") for label in range(max(found) + 1)]


def labelled_answers(data_root: str, task: Task) -> dict[int, str]:
    """The answer of every label that a row of the tables for training and validation carries."""
    found: dict[int, str] = {}
    for split in dict.fromkeys((*task.train, *task.validate)):
        if split == task.may_lack and not table_path(data_root, task.files, split).is_file():
            continue
        table = open_table(data_root, task.files, split, task.columns)
        labels, answers = (_flatten(table[name]) for name in ("answer_labels", "answers"))
        found.update(zip(labels, answers, strict=True))
    return found


def question_index(table: Table) -> np.ndarray:
    """For every question of the table its image's row and its place in that row's list, (questions, 2)."""
    counts = np.asarray(table["questions"].combine_chunks().value_lengths()) if len(table) else np.zeros(0, int)
    rows = np.repeat(np.arange(len(counts)), counts)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([rows, places], axis=1)


def read_picture(table: Table, row: int, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """The transformed picture of a row."""
    with Image.open(io.BytesIO(table["image"][row].as_py())) as image:
        return transform(image)


def _flatten(column: pa.ChunkedArray) -> list:
    return [item for row in column.to_pylist() for question in row or () for item in question or ()]
