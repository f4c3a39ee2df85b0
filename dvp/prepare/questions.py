"""The tables of VQAv2 and GQA: one row is one image with the list of its questions."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from dvp.counting import counted
from dvp.prepare.raw import read_image
from dvp.prepare.tables import Account, Tables, present_images

Targets = tuple[tuple[int, float], ...]  # (label, soft score) pairs, none where no answer is known


class Question(NamedTuple):
    """One question. There are up to a million in memory: equal targets should be one object."""

    question_id: int | str
    text: str
    targets: Targets = ()


Images = dict[Any, list[Question]]  # by image id


def question_schema(image_id: pa.DataType, question_id: pa.DataType) -> pa.Schema:
    """The published schema, whose ids are numbers in VQAv2 and strings in GQA.

    The published scripts write null types where a table or a column is empty, so readers have to take both.
    """
    columns = {
        "image": pa.binary(),
        "questions": pa.list_(pa.string()),
        "answers": pa.list_(pa.list_(pa.string())),
        "answer_labels": pa.list_(pa.list_(pa.int64())),
        "answer_scores": pa.list_(pa.list_(pa.float64())),
        "image_id": image_id,
        "question_id": pa.list_(question_id),
        "split": pa.large_string(),
    }
    return pa.schema(list(columns.items()))


def write_questions(
    tables: Tables,
    name: str,
    split: str,
    images: Images,
    path_of: Callable[[Any], Path],
    schema: pa.Schema,
    answers: list[str] | None,
    *,
    train: bool = False,
    allow_missing_images: bool,
) -> None:
    """Nothing; these questions go to the table `name`, images in the order of their ids, and are accounted for.

    answers: the vocabulary in label order; None: a split without answers. train: questions without a known answer are
    dropped, since they would teach "none of these"; an evaluation split keeps them, or its score would be too good.
    """
    account = Account(name, questions=sum(map(len, images.values())))
    tables.accounts.append(account)
    present = present_images(sorted(images), path_of, account, allow_missing_images)
    account.imageless = account.questions - sum(len(images[image_id]) for image_id in present)

    def rows() -> Iterator[dict[str, Any]]:
        for image_id in counted(present, f"{name}: pictures"):
            kept = [question for question in images[image_id] if question.targets or not train]
            account.unlabelled += len(images[image_id]) - len(kept)
            if not kept:
                continue
            account.images += 1
            account.kept += len(kept)
            yield {
                "image": read_image(path_of(image_id), account.seen),
                "questions": [question.text for question in kept],
                **answer_columns(kept, answers),
                "image_id": image_id,
                "question_id": [question.question_id for question in kept],
                "split": split,
            }

    tables.write(name, schema, rows())


def answer_columns(questions: list[Question], answers: list[str] | None) -> dict[str, list]:
    """The three columns of answers, without a vocabulary all empty."""
    if answers is None:
        return {"answers": [], "answer_labels": [], "answer_scores": []}
    return {
        "answers": [[answers[label] for label, _ in question.targets] for question in questions],
        "answer_labels": [[label for label, _ in question.targets] for question in questions],
        "answer_scores": [[score for _, score in question.targets] for question in questions],
    }
