"""The official VQA accuracy on cases worked by hand."""

from typing import Any

import pytest

from dvp.errors import UserError
from dvp.evaluation import vqa


def annotators(*answers: str) -> list[dict[str, Any]]:
    return [{"answer": answer, "answer_id": number} for number, answer in enumerate(answers, 1)]


@pytest.mark.parametrize(
    ("answer", "given", "expected"),
    [
        # k of ten annotators agree: k of the ten choices leave one of them out, and count k - 1; the others count k.
        pytest.param("red", ["red"] * 1 + ["blue"] * 9, (9 * 1 / 3) / 10, id="one of ten"),
        pytest.param("red", ["red"] * 2 + ["blue"] * 8, (2 * 1 / 3 + 8 * 2 / 3) / 10, id="two of ten"),
        pytest.param("red", ["red"] * 3 + ["blue"] * 7, (3 * 2 / 3 + 7) / 10, id="three of ten"),
        pytest.param("red", ["red"] * 4 + ["blue"] * 6, 1.0, id="four of ten"),
        pytest.param("red", ["blue"] * 10, 0.0, id="none of ten"),
        pytest.param("", ["red"] * 5 + ["blue"] * 5, 0.0, id="an empty answer"),
        pytest.param("", ["the"] * 5 + ["blue"] * 5, 1.0, id="an article alone is the empty answer"),
        pytest.param("two", ["2"] * 5 + ["3"] * 5, 1.0, id="a number word"),
        pytest.param("The Dog", ["a dog"] * 5 + ["cat"] * 5, 1.0, id="articles and capitals"),
        pytest.param("dont know", ["don't know"] * 5 + ["no"] * 5, 1.0, id="a contraction"),
        pytest.param("1,000.", ["1000"] * 5 + ["no"] * 5, 1.0, id="commas and periods"),
        pytest.param("ice\ncream\t", ["ice cream"] * 5 + ["no"] * 5, 1.0, id="line ends and tabs"),
        # Where all ten wrote the same, the official program normalises neither side: only white space and capitals go.
        pytest.param("two", ["2"] * 10, 0.0, id="unanimous, a number word"),
        pytest.param("two", ["two"] * 10, 1.0, id="unanimous, as written"),
        pytest.param("YES\n", ["\tyes"] * 10, 1.0, id="unanimous, capitals and white space"),
        pytest.param("yes.", ["yes"] * 10, 0.0, id="unanimous, a period"),
        pytest.param("the red", ["the red"] * 9 + ["the red "], 1.0, id="unanimous after stripping"),
        pytest.param("red", ["the red"] * 9 + ["red"], 1.0, id="unanimous only after normalising"),
    ],
)
def test_accuracy_of_one_answer(answer, given, expected):
    assert vqa.answer_accuracy(answer, annotators(*given)) == pytest.approx(expected)


def annotation(question: int, kind: str, answer_type: str, answers: list[str]) -> dict[str, Any]:
    row = {"question_id": question, "question_type": kind, "answer_type": answer_type}
    return row | {"answers": annotators(*answers)}


ANNOTATIONS = [
    annotation(7, "is the", "yes/no", ["yes"] * 10),
    annotation(3, "is the", "yes/no", ["yes"] * 2 + ["no"] * 8),
    annotation(5, "what", "other", ["cat"] * 3 + ["dog"] * 7),
]
QUESTIONS = [{"question_id": 3}, {"question_id": 5}, {"question_id": 7}]


def predictions(**answers: str) -> list[dict[str, Any]]:
    return [{"question_id": int(name[1:]), "answer": answer} for name, answer in answers.items()]


def test_means_are_taken_per_type_and_rounded_to_two_decimals():
    scores = vqa.score(predictions(q3="yes", q5="cat", q7="yes"), ANNOTATIONS, QUESTIONS)
    assert scores == {
        "overall": 83.33,
        "perQuestionType": {"is the": 80.0, "what": 90.0},
        "perAnswerType": {"yes/no": 80.0, "other": 90.0},
        "perQuestion": {7: 100.0, 3: 60.0, 5: 90.0},
    }


def test_scoring_leaves_the_rows_as_they_were():
    rows = [annotation(3, "what", "other", ["The cat"] * 5 + ["two"] * 5)]
    vqa.score(predictions(q3="Cat"), rows, QUESTIONS[:1])
    assert [one["answer"] for one in rows[0]["answers"]] == ["The cat"] * 5 + ["two"] * 5


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (predictions(q3="a", q5="b"), r"1 missing \(7\)"),
        (predictions(q3="a", q5="b", q7="c", q8="d"), r"1 unknown \(8\)"),
        (predictions(q3="a", q5="b", q7="c") + predictions(q7="d"), r"1 twice \(7\)"),
        (predictions(q100="a"), r"3 missing \(3, 5, 7\); 1 unknown \(100\); none in common: .*another data set"),
        ([], r"3 missing"),
    ],
)
def test_predictions_for_other_questions_are_refused_and_named(answers, message):
    with pytest.raises(UserError, match=message):
        vqa.score(answers, ANNOTATIONS, QUESTIONS)


def test_annotations_of_other_questions_are_refused():
    with pytest.raises(UserError, match=r"annotations are not those of questions: 1 unknown \(7\)"):
        vqa.score(predictions(q3="a", q5="b"), ANNOTATIONS, QUESTIONS[:2])
