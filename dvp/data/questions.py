"""Rows: one question about one image, and the collate that makes batches of them."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dvp.data.arrow import Table, question_index, read_picture
from dvp.data.told import Told
from dvp.errors import UserError
from dvp.tasks import Task

FIRST_WORDS = 2  # of a question, by which it is grouped


class Questions(Dataset):
    """The questions of one or more tables of a task, each with its image.

    Rows are dicts: text, labels, scores, question_id where the table has one, and pixel_values (3, H, W). Where
    `numbers` tells the number of every table row's picture in a token cache, they bring that number as picture, and
    pixel_values only of those not yet `known` there. Without a transform they bring no picture.
    It pickles as what it is made from, tables as their paths.
    """

    kind = "questions"

    def __init__(
        self,
        tables: list[Table],
        task: Task,
        transform: Callable[[Image.Image], Tensor] | None,
        labelled_only: bool,
        numbers: list[np.ndarray] | None = None,
        known: Tensor | None = None,
    ):
        self.made_from = (tables, task, transform, labelled_only, numbers, known)
        self.tables = [table for table in tables if len(table)]
        self.transform = transform
        self.numbers = [rows for rows in numbers if len(rows)] if numbers else None
        self.known = known
        self.texts = _flat(self.tables, "questions")
        self.ids = _flat(self.tables, "question_id") if "question_id" in tables[0].column_names else None
        rows = [question_index(table)[:, 0] for table in self.tables]
        tables_of = [np.full(len(row), which) for which, row in enumerate(rows)]
        self.places = np.column_stack([_joined(tables_of), _joined(rows)])  # (questions, 2): table and row of each
        labels = [_labels(table, task, len(row)) for table, row in zip(self.tables, rows, strict=True)]
        counts, self.labels = _joined(part[0] for part in labels), _joined(part[1] for part in labels)
        self.scores = _joined((part[2] for part in labels), float)
        self.ends = np.cumsum(counts)  # of each question's labels
        # Training rows without an answer in the vocabulary would teach "none of these"; the published files have none.
        self.kept = np.flatnonzero(counts) if labelled_only else np.arange(len(counts))

    def __reduce__(self) -> tuple[type["Questions"], tuple[Any, ...]]:
        return Questions, self.made_from

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, item: int) -> dict[str, Any]:
        question, labelled = self.kept[item], self.labelled(item)
        sample = {
            "text": self.texts[question].as_py(),
            "labels": [label for label, _ in labelled],
            "scores": [score for _, score in labelled],
        }
        if self.ids is not None:
            sample["question_id"] = self.ids[question].as_py()
        which, row = self.places[question].tolist()
        if self.transform is None:
            return sample
        if self.numbers:
            sample["picture"] = int(self.numbers[which][row])
            if self.known[sample["picture"]]:
                return sample
        return sample | {"pixel_values": read_picture(self.tables[which], row, self.transform)}

    def labelled(self, item: int) -> list[tuple[int, float]]:
        """The labels of a question's answers, each with its score."""
        question = self.kept[item]
        own = slice(self.ends[question - 1] if question else 0, self.ends[question])
        return list(zip(self.labels[own].tolist(), self.scores[own].tolist(), strict=True))

    @property
    def lengths(self) -> np.ndarray:
        """The number of characters of every question, in order."""
        return pc.utf8_length(self.texts).to_numpy()[self.kept]

    @property
    def counted(self) -> np.ndarray:
        """Over how much the loss of every question is averaged: each is one row."""
        return np.ones(len(self), int)

    def counted_texts(self) -> tuple[list[str], np.ndarray]:
        """Every text that is asked, once, and how often."""
        counted = pc.value_counts(self.texts.take(pa.array(self.kept)))
        return counted.field("values").to_pylist(), counted.field("counts").to_numpy()

    def question_ids(self) -> list[Any]:
        """The ids of all questions, in order."""
        return self.ids.take(pa.array(self.kept)).to_pylist()


class Collate:
    """Turns rows into a batch: input_ids and attention_mask (B, T), targets, question_id, and the images.

    Images are pixel_values (B, 3, H, W); or picture (B,), their numbers in a token cache, and, of those that it lacks,
    the numbers met (M,) and pixel_values (M, 3, H, W). T is that of the longest text, at most max_text_len (None:
    whatever it is); with `pad_to_max`, always that.
    """

    def __init__(
        self, tokenizer: Any, task: Task, num_answers: int, max_text_len: int | None, pad_to_max: bool = False
    ):
        self.tokenizer = tokenizer
        self.task = task
        self.num_answers = num_answers
        self.max_text_len = max_text_len
        self.padding = "max_length" if pad_to_max else "longest"

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        columns = {key: [row[key] for row in rows] for key in rows[0] if key != "pixel_values"}
        pictured = [row for row in rows if "pixel_values" in row]
        cut = {"truncation": self.max_text_len is not None, "max_length": self.max_text_len}
        text = self.tokenizer(columns["text"], padding=self.padding, return_tensors="pt", **cut)
        batch = {
            "input_ids": text["input_ids"],  # (B, T)
            "attention_mask": text["attention_mask"],  # (B, T)
            "targets": self.task.targets(columns["labels"], columns["scores"], self.num_answers),
        }
        if pictured:
            batch["pixel_values"] = default_collate([row["pixel_values"] for row in pictured])
        if "picture" in columns:
            batch["picture"] = torch.tensor(columns["picture"])
            if pictured:
                batch["met"] = torch.tensor([row["picture"] for row in pictured])
        if "question_id" in columns:
            batch["question_id"] = columns["question_id"]
        return batch


class QuestionReader:
    """What a classified task makes of its tables: questions, and batches of them.

    transform: from a picture to pixels (3, H, W), or None for a blind run. answers: the vocabulary in label order.
    """

    def __init__(
        self,
        task: Task,
        answers: list[str],
        tokenizer: Any,
        transform: Callable[[Image.Image], Tensor] | None,
        max_text_len: int | None = 16,
        pad_to_max: bool = False,
    ):
        self.task, self.answers, self.transform = task, answers, transform
        self.columns, self.max_length = task.columns, max_text_len
        self.groups = "the right answer" if task.answers else "the question's first words"
        self.collate = Collate(tokenizer, task, len(answers), max_text_len, pad_to_max)

    def dataset(self, tables: dict[str, pa.Table], purpose: str, **pictures: Any) -> Questions:
        """The questions of these tables, for training only those with a known answer. pictures: see Questions."""
        return Questions(list(tables.values()), self.task, self.transform, purpose == "train", **pictures)

    def count_cut(self, questions: Questions) -> int:
        """How many of the questions have more than max_text_len tokens, and so are cut."""
        if self.max_length is None:
            return 0
        texts, counts = questions.counted_texts()  # each is cut into tokens once: of VQAv2's, two in three come again
        return int(counts[self.collate.tokenizer.lengths(texts) > self.max_length].sum())

    def labelled(self, table: pa.Table) -> bool:
        """Whether a table comes with answers, so that it can be scored here."""
        return any(map(any, table["answers"].to_pylist()))

    def told(self, questions: Questions, item: int) -> Told:
        """One of these questions as people read it, with those of its answers that are in the vocabulary."""
        text, found = questions.texts[int(questions.kept[item])].as_py(), questions.labelled(item)
        right = tuple(self.answers[label] for label, _ in sorted(found, key=lambda one: -one[1]))
        words = " ".join(text.lower().split()[:FIRST_WORDS])
        which, row = questions.places[questions.kept[item]].tolist()
        group = right[0] if self.task.answers else words
        return Told(text, right, group, (questions.tables[which], row))


def _joined(parts: Iterable[np.ndarray], dtype: type = int) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)


def _flat(tables: list[Table], column: str) -> pa.ChunkedArray:
    """One entry per question: the lists of a column, joined over rows and tables."""
    parts = [table[column].combine_chunks().flatten() for table in tables]
    parts = [part for part in parts if len(part)]  # an empty one may be of null type
    return pa.chunked_array(parts) if parts else pa.chunked_array([], pa.string())


def _labels(table: Table, task: Task, questions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many labels each question of a table has, all labels, and their scores."""
    if task.answers:
        answers = _flat([table], "answers").combine_chunks()
        labels = pc.index_in(answers, pa.array(task.answers))
        if labels.null_count:
            first = np.flatnonzero(labels.is_null())[0]
            where = f"{table.path}, row {question_index(table)[first, 0]},"
            raise UserError(
                f"{where} holds the answer {str(answers[first])!r}, not one of "
                f"{', '.join(task.answers)}: convert the raw data again."
            )
        return np.ones(questions, int), labels.to_numpy(), np.ones(questions)
    labels, scores = (_flat([table], column).combine_chunks() for column in ("answer_labels", "answer_scores"))
    if not len(labels):  # a test split has no answers
        return np.zeros(questions, int), np.zeros(0, int), np.zeros(0)
    counts = labels.value_lengths().fill_null(0)
    return counts.to_numpy(), *(part.flatten().to_numpy(zero_copy_only=False) for part in (labels, scores))
