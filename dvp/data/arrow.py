"""Arrow tables, memory-mapped: one row is one image with the list of its questions."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from torch import Tensor

from dvp.data.columns import check_rows, plain
from dvp.errors import UserError
from dvp.evaluation.answers import normalise_answer
from dvp.images import open_image
from dvp.manifest import read_manifest
from dvp.tasks import Task, require_table

IDS = ("image_id", "identifier", "question_id")  # the first that a table has names its pictures


class Table:
    """The rows of an Arrow file, memory-mapped; has the attributes of the `pyarrow.Table` that it is.

    It pickles as its path, so that processes that load data map the file, too, instead of being sent its content.
    columns: those that are brought into one set of types. chosen: the rows that it has, in ascending order; None: all.
    """

    def __init__(self, path: Path, columns: Iterable[str] = (), chosen: np.ndarray | None = None):
        self.path, self.columns, self.chosen = path.absolute(), tuple(columns), chosen
        self.rows = plain(pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all(), self.columns)
        if chosen is not None:  # not copied: the pictures stay in the file
            runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
            self.rows = pa.concat_tables(self.rows.slice(run[0], len(run)) for run in runs)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> pa.ChunkedArray:
        return self.rows[column]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rows, name)

    def __reduce__(self) -> tuple[type["Table"], tuple[Any, ...]]:
        return Table, (self.path, self.columns, self.chosen)


def open_table(
    data_root: str, files: str, split: str, columns: Iterable[str] = ("image", "questions", "answers")
) -> Table:
    """The table `<data_root>/<files>_<split>.arrow`, ours or one of the published scripts', in one set of types.

    Raises UserError when the folder or file is missing, the file is damaged or not the one that its manifest tells of,
    its rows do not hold together, or it is another task's.
    """
    path = table_path(data_root, files, split)
    if not data_root or not path.parent.is_dir():
        raise UserError(f"data_root={data_root!r} is not a folder: give the folder with the Arrow files, see DATA.md.")
    manifest = read_manifest(data_root, files)
    require_table(path, files)
    if manifest:
        manifest.check(path)
    try:
        table = Table(path, columns)
        missing = set(columns) - set(table.column_names)
        if not missing:
            check_rows(table.rows, columns, str(path))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path} is truncated or no Arrow file ({reason}): convert the raw data again.") from error
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(sorted(missing))}: it is not one of this project's tables; convert "
            "the raw data again."
        )
    return table


def table_path(data_root: str, files: str, split: str) -> Path:
    """Where the table of a split lies."""
    return Path(data_root) / f"{files}_{split}.arrow"


def read_answers(data_root: str, task: Task) -> list[str]:
    """The answer vocabulary in label order: fixed by the task, stored beside the data, or read from label columns.

    Files of the published scripts have no vocabulary file, and normalised answers, which are written as the task spells
    them; an answer that none of their rows carries is left empty.
    Raises UserError for a file that is no list of answers or not the one of the tables' manifest, and where two tables
    give a label to different answers.
    """
    if task.answers:
        return list(task.answers)
    stored, manifest = Path(data_root) / f"{task.files}_answers.json", read_manifest(data_root, task.files)
    if manifest:
        manifest.check(stored)
    if stored.is_file():
        return read_list(stored)
    found = labelled_answers(data_root, task)
    if not found:
        raise UserError(
            f"{data_root} has neither {stored.name} nor a labelled row of {task.files}: convert the raw data again."
        )
    answers = [found.get(label, "") for label in range(max(found) + 1)]
    return [task.spellings.get(answer, answer) for answer in answers]


def labelled_answers(data_root: str, task: Task) -> dict[int, str]:
    """The answer of every label that a row of the tables for training and validation carries.

    Raises UserError where two tables give a label to different answers.
    """
    found: dict[int, str] = {}
    for split in dict.fromkeys((*task.train, *task.validate)):
        if split == task.may_lack and not table_path(data_root, task.files, split).is_file():
            continue
        table = open_table(data_root, task.files, split, task.columns)
        for label, answer in _labelled_answers(table):
            if found.setdefault(label, answer) != answer:
                raise UserError(
                    f"{_name(table)} has the label {label} for {answer!r}, other rows of {task.files} for "
                    f"{found[label]!r}: the tables are of different conversions, convert the raw data again."
                )
    return found


def check_answers(tables: Iterable[Table], answers: list[str]) -> None:
    """Nothing, or UserError where a row has a label for another answer than the vocabulary has."""
    for table in tables:
        for label, answer in _labelled_answers(table):
            if not 0 <= label < len(answers):
                stands = f"ends at {len(answers) - 1}"
            elif answers[label] and normalise_answer(answers[label]) != normalise_answer(answer):
                stands = f"has {answers[label]!r} there"
            else:
                continue
            raise UserError(
                f"{_name(table)}, row {_row_of(table, label)}, has the label {label} for {answer!r}, but the list of "
                f"answers {stands}: that list, the file beside the tables or the checkpoint's own, is of another "
                "conversion; take the one that was made with them, or convert the raw data again."
            )


def question_index(table: Table) -> np.ndarray:
    """For every question of the table its image's row and its place in that row's list, (questions, 2)."""
    counts = np.asarray(table["questions"].combine_chunks().value_lengths()) if len(table) else np.zeros(0, int)
    rows = np.repeat(np.arange(len(counts)), counts)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([rows, places], axis=1)


def read_picture(table: Table, row: int, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """The transformed picture of a row. Raises UserError, with table, row and id, for one that does not decode."""
    return transform(open_image(table["image"][row].as_py(), place_of(table, row)))


def picture_bytes(table: Table, row: int) -> bytes:
    """The picture of a row as it is stored; UserError where the row has none."""
    data = table["image"][row].as_py()
    if not data:
        raise UserError(
            f"The picture {place_of(table, row)} is empty: convert the raw data again, or leave the row out."
        )
    return data


def place_of(table: Table, row: int) -> str:
    """Where the picture of a row stands: file, row and id."""
    name = next((name for name in IDS if name in table.column_names), None)
    known = f", {name} {table[name][row].as_py()}" if name else ""
    return f"in {_name(table)} (row {row}{known})"


def _name(table: Table) -> str:
    return str(getattr(table, "path", "a table"))  # one in memory has no file


def read_list(path: Path) -> list[str]:
    """The answers in the file of a vocabulary, in the order of their labels; raises UserError for any other file."""
    try:
        answers: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no whole JSON ({error}): convert the raw data again.") from error
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f"{path} is not a list of answers in the order of their labels: convert the raw data again.")
    return answers


def _labelled_answers(table: Table) -> list[tuple[int, str]]:
    """The distinct (label, answer) pairs of the table, in order of label."""
    if not len(table) or "answer_labels" not in table.column_names:
        return []
    labels, answers = (flatten(table[name]) for name in ("answer_labels", "answers"))
    if not len(labels):
        return []
    pairs = pa.table({"label": labels, "answer": answers}).group_by(["label", "answer"]).aggregate([])
    return sorted(zip(pairs["label"].to_pylist(), pairs["answer"].to_pylist(), strict=True))


def _row_of(table: Table, label: int) -> int:
    """The first row with this label."""
    rows = enumerate(table["answer_labels"].to_pylist())
    return next(row for row, questions in rows if any(label in labels for labels in questions))


def flatten(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The entries of all lists in the lists of a column."""
    while pa.types.is_list(column.type):
        column = pc.list_flatten(column)
    return column
