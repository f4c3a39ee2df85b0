"""GQA: official balanced questions and Visual Genome images -> gqa_{train,val,test-dev}."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from dvp.errors import UserError
from dvp.evaluation.answers import normalise_answer
from dvp.prepare.questions import Images, Question, Targets, question_schema, write_questions
from dvp.prepare.raw import check_new, field, file_name, inside, read_object, storable
from dvp.prepare.tables import Options, Tables

SCHEMA = question_schema(pa.large_string(), pa.string())
OFFICIAL = {"train": "train", "val": "val", "test-dev": "testdev"}  # split -> its name in the official files


def prepare(raw: Path, tables: Tables, options: Options) -> None:
    """Nothing; writes the three tables and gqa_answers.json."""
    spellings = _vocabulary(raw)
    answers = [found.most_common(1)[0][0] for found in spellings.values()]
    labels = {answer: label for label, answer in enumerate(spellings)}
    exact = {answer: label for label, answer in enumerate(answers)}
    for split in OFFICIAL:
        # What is learnt is the answer, what is scored its spelling: the official program compares to the letter.
        learnt = split == "train"
        label_of = (lambda answer: labels[normalise_answer(answer)]) if learnt else exact.get
        images = _read(_path(raw, split), label_of)
        write_questions(
            tables,
            f"gqa_{split}",
            split,
            images,
            lambda image_id: inside(raw / "images", f"{image_id}.jpg"),
            SCHEMA,
            answers,
            train=learnt,
            allow_missing_images=options.allow_missing_images,
        )
        del images  # before the next split is read
    tables.write_answers("gqa", answers)


def _vocabulary(raw: Path) -> dict[str, Counter]:
    """How often each spelling of an answer comes in train and val, by normalised answer.

    They are in the order of their first use, which gives the published labels; test-dev gives none.
    """
    spellings: dict[str, Counter] = defaultdict(Counter)
    for split in ("train", "val"):
        for where, _, entry in _entries(_path(raw, split)):
            answer = field(entry, "answer", str, where)
            spellings[normalise_answer(answer)][answer] += 1
    return spellings


def _read(path: Path, label_of: Callable[[str], int | None]) -> Images:
    images: Images = defaultdict(list)
    same: dict[int, Targets] = {}
    seen: set[str] = set()
    for where, question_id, entry in _entries(path):
        check_new(question_id, seen, path)
        seen.add(question_id)
        label = label_of(field(entry, "answer", str, where))
        targets = () if label is None else same.setdefault(label, ((label, 1.0),))
        question = Question(question_id, field(entry, "question", str, where), targets)
        images[file_name(field(entry, "imageId", str, where), "imageId", where)].append(question)
    return dict(images)


def _entries(path: Path) -> Iterator[tuple[str, str, Any]]:
    """(where it stands, question id, entry) for the questions of a file; UserError when it has none."""
    empty = True
    for question_id, entry in read_object(path):
        empty = False
        where = f"{path}: question {question_id!r}"
        if not question_id:
            raise UserError(f"{path} has a question without an id: download it again, see DATA.md.")
        yield where, storable(question_id, "id", where), entry
    if empty:
        raise UserError(f"{path} has no questions: download it again, see DATA.md.")


def _path(raw: Path, split: str) -> Path:
    return raw / f"{OFFICIAL[split]}_balanced_questions.json"
