"""Rows: one question about one image, and the collate that makes batches of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dvp.data.arrow import question_index, read_picture
from dvp.tasks import Task


class Questions(Dataset):
    """The questions of one or more tables of a task, each with its image.

    Rows are dicts: text, labels, scores, question_id where the table has one, and pixel_values (3, H, W), or, where
    `picture_rows` tells the place of every table row's picture in a token cache, that place as image_row. Without a
    transform they bring no picture.
    """

    def __init__(
        self,
        tables: list[pa.Table],
        task: Task,
        transform: Callable[[Image.Image], Tensor] | None,
        labelled_only: bool,
        picture_rows: list[np.ndarray] | None = None,
    ):
        self.tables = tables
        self.task = task
        self.transform = transform
        self.picture_rows = picture_rows
        places = [question_index(table) for table in tables]
        parts = [np.column_stack([np.full(len(place), i), place]) for i, place in enumerate(places)]
        self.index = np.concatenate(parts)  # (questions, 3): table, row, place
        if labelled_only and not task.answers:
            # Rows without an answer in the vocabulary would teach "none of these"; the published files have none.
            labelled = np.concatenate([_has_label(table) for table in tables])
            self.index = self.index[labelled]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int) -> dict[str, Any]:
        which, row, place = (int(i) for i in self.index[item])
        table = self.tables[which]
        labels, scores = self._target(table, row, place)
        sample = {"text": table["questions"][row][place].as_py(), "labels": labels, "scores": scores}
        if "question_id" in table.column_names:
            sample["question_id"] = table["question_id"][row][place].as_py()
        if self.transform is None:
            return sample
        if self.picture_rows:
            return sample | {"image_row": int(self.picture_rows[which][row])}
        return sample | {"pixel_values": read_picture(table, row, self.transform)}

    def question_ids(self) -> list[Any]:
        """The ids of all questions, in order."""
        ids = [table["question_id"].to_pylist() for table in self.tables]
        return [ids[which][row][place] for which, row, place in self.index.tolist()]

    def _target(self, table: pa.Table, row: int, place: int) -> tuple[list[int], list[float]]:
        if self.task.answers:
            return [self.task.answers.index(table["answers"][row][place].as_py())], [1.0]
        labels = table["answer_labels"][row].as_py()
        if not labels:  # a test split has no answers
            return [], []
        return labels[place], table["answer_scores"][row].as_py()[place]


class Collate:
    """Turns rows into a batch: input_ids and attention_mask (B, T), targets, question_id, and the images.

    Images are pixel_values (B, 3, H, W), or image_row (B,) into a token cache.
    """

    def __init__(self, tokenizer: Any, task: Task, num_answers: int, max_text_len: int):
        self.tokenizer = tokenizer
        self.task = task
        self.num_answers = num_answers
        self.max_text_len = max_text_len

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        text = self.tokenizer(
            [row["text"] for row in rows],
            padding="max_length",
            truncation=True,
            max_length=self.max_text_len,
            return_tensors="pt",
        )
        batch = {
            "input_ids": text["input_ids"],  # (B, T)
            "attention_mask": text["attention_mask"],  # (B, T)
            "targets": self.task.targets(
                [row["labels"] for row in rows], [row["scores"] for row in rows], self.num_answers
            ),
        }
        for image in ("pixel_values", "image_row"):
            if image in rows[0]:
                batch[image] = default_collate([row[image] for row in rows])  # (B, 3, H, W) or (B,)
        if "question_id" in rows[0]:
            batch["question_id"] = [row["question_id"] for row in rows]
        return batch


def _has_label(table: pa.Table) -> np.ndarray:
    return np.array([bool(question) for row in table["answer_labels"].to_pylist() for question in row], dtype=bool)
