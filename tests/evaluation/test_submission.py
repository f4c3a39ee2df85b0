"""Predictions: every question exactly once, or no file at all."""

import json
from pathlib import Path

import pytest

from dvp.errors import UserError
from dvp.evaluation.submission import gather, predictions, write_submission

ROWS = [(7, "yes"), (3, "two")]
NAMES = ("question_id", "answer")


def test_answers_are_written_in_order_with_a_note_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "result" / "vqa_submit_last.json"
    write_submission(path, predictions(ROWS, [3, 7], NAMES), {"as_published": False})
    assert json.loads(path.read_text()) == [{"question_id": 3, "answer": "two"}, {"question_id": 7, "answer": "yes"}]
    assert json.loads(path.with_suffix(".about.json").read_text()) == {"as_published": False}
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize(
    "rows, questions, message",
    [
        (ROWS, [3, 7, 8], "1 questions without an answer"),
        (ROWS, [3], "1 answers too many"),
        ([*ROWS, ROWS[0]], [3, 7], "1 answers too many"),
        ([ROWS[0], ROWS[0]], [3, 7], "1 questions without an answer, 1 answers too many"),
        ([*ROWS, ROWS[0]], [3, 7, 7], "question 7 twice"),
        ([("7", "yes"), ROWS[1]], [3, 7], "1 questions without an answer"),
    ],
)
def test_anything_but_each_question_once_is_refused(rows, questions, message: str) -> None:
    with pytest.raises(UserError, match=message):
        predictions(rows, questions, NAMES)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "result").write_text("a file in place of the folder")
    with pytest.raises(UserError, match="result"):
        write_submission(tmp_path / "result" / "out.json", predictions(ROWS, [3, 7], NAMES), {})


def test_alone_the_rows_are_all_rows() -> None:
    assert gather(ROWS) == ROWS
