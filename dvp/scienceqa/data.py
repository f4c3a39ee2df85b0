"""ScienceQA's tables as rows of tokens; pictures only for the rows that have one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dvp.backbones.tokenizer import Tokenizer
from dvp.data.arrow import Table, read_picture
from dvp.data.told import Told
from dvp.encoders.preprocessing import IMAGENET, Preprocessing
from dvp.encoders.transform import prepare
from dvp.errors import UserError
from dvp.scienceqa.text import ANSWER_STEM, LETTERS, answers_first, write_example
from dvp.scienceqa.tokens import Layout, Row, encode_row

COLUMNS = (
    "question_id", "image", "question", "choices", "answer", "hint", "caption", "lecture", "solution", "subject",
    "grade",
)  # fmt: skip
# As published, of CLIP's pictures: the whole of one, and ImageNet's mean and std, though CLIP was trained on others.
SQUEEZED = Preprocessing(224, None, **IMAGENET)


def squeeze(image: Image.Image, size: int, turn: bool = False) -> Tensor:
    """The picture as a tensor (3, size, size): squeezed to a square (bicubic), ImageNet's mean and std.

    turn: as its EXIF says that it is to be seen. Raises UserError for values of no known range.
    """
    return prepare(image, SQUEEZED.at(size), turn)


class Problems(Dataset):
    """The problems of a table as rows of tokens, with their pictures."""

    def __init__(self, table: Table, rows: list[Row], reader: "ProblemReader"):
        self.table, self.rows, self.transform, self.layout = table, rows, reader.transform, reader.layout
        self.kind = "examples" if rows and rows[0].ended else "prompts"
        self.lengths = np.minimum([self.layout.length(row) for row in rows], self.layout.max_length)
        self.choices = list(zip(table["answer"].to_pylist(), map(len, table["choices"]), strict=True))
        self.ids = table["question_id"].to_pylist()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> dict[str, Any]:
        answer, count = self.choices[item]
        problem = {"row": self.rows[item], "answer": answer, "num_choices": count, "question_id": self.ids[item]}
        if self.rows[item].has_image:
            problem["pixel_values"] = read_picture(self.table, item, self.transform)
        return problem

    @property
    def counted(self) -> np.ndarray:
        """Over how much the loss of every problem is averaged: its labelled tokens that are not cut."""
        return np.array([self.layout.labelled(row) for row in self.rows])

    def question_ids(self) -> list[str]:
        """The ids of all problems, in order."""
        return self.ids


class ProblemReader:
    """What ScienceQA makes of its tables: prompts with their answers for training and the search, else to be answered.

    transform: from a picture to pixels (3, H, W), or None for a blind run, in which no row has its image. likelihood:
    the test asks for the next letter instead of a text.
    """

    columns = COLUMNS
    groups = "subject"

    def __init__(
        self,
        tokens: Tokenizer,
        layout: Layout,
        transform: Callable[[Image.Image], Tensor] | None,
        *,
        prompt_format: str,
        use_caption: bool,
        likelihood: bool = False,
        as_published: bool = False,
    ):
        self.tokens, self.layout, self.transform = tokens, layout, transform
        self.max_length = layout.max_length
        self.prompt_format, self.use_caption, self.as_published = prompt_format, use_caption, as_published
        self.answers = list(LETTERS)
        # What is put behind the prompt where the answer is asked for: nothing, or what a letter follows.
        self.stems = {
            "validate": ANSWER_STEM if answers_first(prompt_format) else "", "test": ANSWER_STEM if likelihood else ""
        }  # fmt: skip
        self.letters = torch.tensor([tokens.encode(f"{ANSWER_STEM} {letter}")[-1] for letter in LETTERS])

    def dataset(self, tables: dict[str, Table], purpose: str) -> Problems:
        """The problems of a table, by its split, for train, search, validate or test."""
        ((split, table),) = tables.items()
        _require_answers(table)
        return Problems(table, self._encode(split, table, purpose), self)

    def count_cut(self, problems: Problems) -> int:
        """How many of the problems take more than max_length positions, and so are cut."""
        return sum(self.layout.length(row) > self.max_length for row in problems.rows)

    def labelled(self, table: Table) -> bool:
        """ScienceQA's tables all come with their answers."""
        return True

    def told(self, problems: Problems, item: int) -> Told:
        """One of these problems as people read it: the question with its choices."""
        names = ("question", "choices", "answer", "subject")
        question, choices, answer, subject = (problems.table[name][item].as_py() for name in names)
        listed = [f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
        picture = (problems.table, item) if problems.table["image"][item].as_py() else None
        return Told(" ".join([question, *listed]), (choices[answer],), subject or "none", picture)

    def collate(self, problems: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch of the layout, with answer and num_choices (B,), letters (5,) and question_id.

        Where the answer comes first, letter (B,): which of the R read out tells its letter, -1 where none does.
        """
        rows = [problem["row"] for problem in problems]
        pictures = [problem["pixel_values"] for problem in problems if "pixel_values" in problem]
        if self.as_published and self.transform:  # Published: a picture of zeros where there is none
            none = torch.zeros_like(pictures[0]) if pictures else self.transform(Image.new("RGB", (1, 1))) * 0
            pictures = [problem.get("pixel_values", none) for problem in problems]
        batch = (self.layout.batch if rows[0].ended else self.layout.question_batch)(rows, pictures)
        if answers_first(self.prompt_format):  # behind an explanation, the letter only repeats what that says
            letters = [self._letter(row, index, *batch["read"]) for index, row in enumerate(rows)]
            batch["letter"] = torch.tensor(letters)  # (B,)
        return batch | {
            "answer": torch.tensor([problem["answer"] for problem in problems]),  # (B,)
            "num_choices": torch.tensor([problem["num_choices"] for problem in problems]),  # (B,)
            "letters": self.letters,
            "question_id": [problem["question_id"] for problem in problems],
        }

    def _letter(self, row: Row, index: int, rows: Tensor, positions: Tensor) -> int:
        before = self.layout.text_start(row.has_image) + row.letter - 2  # the position that tells the letter
        found = ((rows == index) & (positions == before)).nonzero().flatten().tolist() if row.letter >= 0 else []
        return found[0] if found else -1

    def _letter_place(self, row: Row, prompt: str, follows: str, answer: int) -> int:
        """The place in the row's ids of its answer's letter; -1 where it is not written."""
        named = f"{ANSWER_STEM} {LETTERS[answer]}"
        start = follows.find(named)
        if start < 0:
            return -1
        place = len(self.tokens.encode(prompt + follows[: start + len(named)]))  # behind BOS
        return place if int(row.ids[place]) == self.letters[answer] else -1

    def _encode(self, split: str, table: Table, purpose: str) -> list[Row]:
        texts = [name for name in COLUMNS if name not in ("image", "question_id")]
        stem = self.stems.get(purpose)  # None: the whole answer follows, and is learned
        rows = []
        for problem, has_image in zip(table.select(texts).to_pylist(), with_image(table), strict=True):
            rows.append(self.encode(problem, has_image, stem))
        return rows

    def encode(self, problem: dict[str, Any], has_image: bool, stem: str | None) -> Row:
        """The row of a problem with the official fields, its prompt followed by `stem`, or by the answer if None."""
        prompt, target = write_example(problem, self.prompt_format, self.use_caption)
        follows = target if stem is None else stem
        row = encode_row(self.tokens, prompt, follows, has_image and bool(self.transform), stem is None)
        return row._replace(letter=self._letter_place(row, prompt, follows, problem["answer"]))


def _require_answers(table: Table) -> None:
    """Nothing, or UserError where a row's answer is none of its choices, or has no letter."""
    for row, (answer, choices) in enumerate(
        zip(table["answer"].to_pylist(), table["choices"].to_pylist(), strict=True)
    ):
        if not 0 <= answer < len(choices) <= len(LETTERS):
            raise UserError(
                f"{table.path}, row {row}, has the answer {answer} of {len(choices)} choices, of which there may be "
                f"{len(LETTERS)}: convert the raw data again."
            )


def problems_by_id(table: Table) -> dict[str, dict[str, Any]]:
    """The problems of a table as the evaluation wants them, with their choices."""
    columns = {name: table[name].to_pylist() for name in ("choices", "answer", "hint", "subject", "grade")}
    columns["image"] = with_image(table)
    ids = table["question_id"].to_pylist()
    return {pid: dict(zip(columns, values, strict=True)) for pid, *values in zip(ids, *columns.values(), strict=True)}


def with_image(table: Table) -> list[bool]:
    """Which problems of a table have a picture."""
    return [length > 0 for length in pc.binary_length(table["image"]).fill_null(0).to_pylist()]
