"""GQA: official balanced questions and Visual Genome images -> gqa_{train,val,test-dev}."""

from collections import defaultdict
from functools import partial
from pathlib import Path

import pyarrow as pa

from dvp.errors import UserError
from dvp.evaluation.answers import normalise_answer
from dvp.prepare.questions import Images, Question, Targets, question_schema, write_questions
from dvp.prepare.raw import check_new, field, read_object
from dvp.prepare.tables import Options, Tables

SCHEMA = question_schema(pa.large_string(), pa.string())


def prepare(raw: Path, tables: Tables, options: Options) -> None:
    """Nothing; writes the three tables and gqa_answers.json."""
    # An answer gets its label at its first use in train, then val: the published order. test-dev gives none.
    labels: dict[str, int] = {}
    write = partial(write_questions, tables, schema=SCHEMA, allow_missing_images=options.allow_missing_images)
    for split, official, learn in (("train", "train", True), ("val", "val", True), ("test-dev", "testdev", False)):
        images = _read(raw / f"{official}_balanced_questions.json", labels, learn)
        answers = list(labels)
        write(
            f"gqa_{split}",
            split,
            images,
            lambda image_id: raw / "images" / f"{image_id}.jpg",
            answers=answers,
            train=split == "train",
        )
        del images  # before the next split is read
    tables.write_answers("gqa", answers)


def _read(path: Path, labels: dict[str, int], learn: bool) -> Images:
    images: Images = defaultdict(list)
    same: dict[int, Targets] = {}
    seen: set[str] = set()
    for question_id, entry in read_object(path):
        where = f"{path}: question {question_id!r}"
        if not question_id:
            raise UserError(f"{path} has a question without an id: download it again, see DATA.md.")
        check_new(question_id, seen, path)
        seen.add(question_id)
        answer = normalise_answer(field(entry, "answer", str, where))
        label = labels.setdefault(answer, len(labels)) if learn else labels.get(answer)
        targets = () if label is None else same.setdefault(label, ((label, 1.0),))
        question = Question(question_id, field(entry, "question", str, where), targets)
        images[field(entry, "imageId", str, where)].append(question)
    if not seen:
        raise UserError(f"{path} has no questions: download it again, see DATA.md.")
    return dict(images)
