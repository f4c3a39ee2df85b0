"""The official GQA accuracy on cases worked by hand."""

import json
from typing import Any

import pytest
import torch
from PIL import Image

from dvp.data.arrow import open_table, read_answers
from dvp.data.questions import Questions
from dvp.errors import UserError
from dvp.evaluation import gqa
from dvp.prepare import convert
from dvp.tasks import TASKS


def question(answer: str, structural: str, text: str, *program: str, balanced: bool = True) -> dict[str, Any]:
    steps = [dict(zip(("operation", "argument"), step.split(": "), strict=True)) for step in program]
    types = {"structural": structural, "semantic": "attr", "detailed": "x"}
    return {"question": text, "answer": answer, "isBalanced": balanced, "types": types, "semantic": steps}


QUESTIONS = {
    "1": question("red", "query", "What color is it?", "select: car (1)", "query: color"),
    "2": question("car", "query", "What is it ?", "select: car (1)", "query: name"),
    "3": question("yes", "verify", "Is it red?", "select: car (1)", "verify color: red"),
    "4": question("no", "logical", "Is there a cat?", "select: cat (-)", "exist: ?"),
    "5": question("left", "choose", "Is it left or right of it?", *["relate: a"] * 10, "choose name: a|b"),
    "6": question("no", "verify", "Is it blue?", "select: car (1)", balanced=False),
}


def predictions(**answers: str) -> list[dict[str, str]]:
    return [{"questionId": name[1:], "prediction": answer} for name, answer in answers.items()]


def test_accuracies_over_the_balanced_questions():
    scores = gqa.score(predictions(q1="red", q2="cars", q3="Yes", q4="no", q5="left"), QUESTIONS)
    assert scores == {
        "binary": 66.67,
        "open": 50.0,
        "accuracy": 60.0,
        "by": {
            "structural type": {"choose": [100.0, 1], "logical": [100.0, 1], "query": [50.0, 2], "verify": [0.0, 1]},
            "semantic type": {"attr": [60.0, 5]},
            "steps number": {"1": [50.0, 2], "2": [50.0, 2], "10": [100.0, 1]},
            "words number": {"3": [0.0, 1], "4": [66.67, 3], "7": [100.0, 1]},
        },
    }
    assert list(scores["by"]["steps number"]) == ["1", "2", "10"]  # in order of number, not of spelling


def test_predictions_for_further_questions_are_let_be():
    answers = predictions(q1="red", q2="car", q3="yes", q4="no", q5="left", q6="yes", q99="no")
    assert gqa.score(answers, QUESTIONS)["accuracy"] == 100.0


def test_without_binary_questions_their_accuracy_is_0():
    assert gqa.score(predictions(q1="red"), {"1": QUESTIONS["1"]})["binary"] == 0.0


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (predictions(q1="a", q2="b", q3="c", q4="d"), r"1 missing \(5\)"),
        (predictions(q1="a", q2="b", q3="c", q4="d", q5="e") + predictions(q1="f"), r"1 twice \(1\)"),
        (predictions(q77="a"), "none in common: .*another data set"),
    ],
)
def test_unanswered_or_twice_answered_questions_are_refused_and_named(answers, message):
    with pytest.raises(UserError, match=message):
        gqa.score(answers, QUESTIONS)


def test_the_accuracy_of_a_run_is_the_one_that_its_predictions_get(tmp_path):
    spelt = {"train": ["t-shirt", "T-shirt", "the car", "t-shirt"], "val": ["the car"]}
    spelt |= {"testdev": ["t-shirt", "t shirt", "T-shirt", "the car", "car", "never seen"]}
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images/1.jpg")
    asked = {
        split: {f"{i}": question(answer, "query", "What?") | {"imageId": "1"} for i, answer in enumerate(answers)}
        for split, answers in spelt.items()
    }
    for split, questions in asked.items():
        (tmp_path / f"{split}_balanced_questions.json").write_text(json.dumps(questions))
    convert("gqa", str(tmp_path), str(tmp_path / "arrow"))
    task = TASKS["gqa"]
    answers = read_answers(str(tmp_path / "arrow"), task)
    assert answers == ["t-shirt", "the car"]
    table = open_table(str(tmp_path / "arrow"), "gqa", "test-dev", task.columns)
    rows = Questions([table], task, None, labelled_only=False)
    targets = task.targets([row["labels"] for row in rows], [row["scores"] for row in rows], len(answers))
    for label, answer in enumerate(answers):
        logits = torch.eye(len(answers))[label].expand(len(rows), -1)
        given = [{"questionId": row["question_id"], "prediction": answer} for row in rows]
        official = gqa.score(given, asked["testdev"])["accuracy"]
        assert round(100 * task.score(logits, targets).mean().item(), 2) == official == 16.67
