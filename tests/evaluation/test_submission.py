"""Predictions: every question exactly once, or no file at all."""

import json
from pathlib import Path

import pytest

from dvp.errors import UserError
from dvp.evaluation.submission import gather, write_predictions

ROWS = [{"question_id": 7, "answer": "yes"}, {"question_id": 3, "answer": "two"}]


def test_answers_are_written_in_order_with_a_note_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "result" / "vqa_submit_last.json"
    write_predictions(path, ROWS, [3, 7], "question_id", {"as_published": False})
    assert json.loads(path.read_text()) == ROWS[::-1]
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
        ([{"question_id": "7", "answer": "yes"}, ROWS[1]], [3, 7], "1 questions without an answer"),
    ],
)
def test_anything_but_each_question_once_is_refused(rows, questions, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        write_predictions(tmp_path / "out.json", rows, questions, "question_id", {})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "result").write_text("a file in place of the folder")
    with pytest.raises(UserError, match="result"):
        write_predictions(tmp_path / "result" / "out.json", ROWS, [3, 7], "question_id", {})


def test_alone_the_rows_are_all_rows() -> None:
    assert gather(ROWS) == ROWS
