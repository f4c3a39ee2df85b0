"""VQAv2's official accuracy, and what the test server asks of a submission (EvalAI challenge 830).

The rules are those of the official evaluation program (github.com/GT-Vision-Lab/VQA), surprises included.
"""

from collections import defaultdict
from typing import Any

from dvp.errors import UserError
from dvp.evaluation.answers import normalise_answer
from dvp.evaluation.inputs import check_ids, check_rows, read_json, read_rows

PREDICTION = {"question_id": int, "answer": str}
ANNOTATION = {"question_id": int, "question_type": str, "answer_type": str, "answers": list}
QUESTION = {"question_id": int}


def score(
    predictions: list[dict[str, Any]], annotations: list[dict[str, Any]], questions: list[dict[str, Any]]
) -> dict[str, Any]:
    """Percentages with two decimals, under the official program's names, and "perQuestion" by question id.

    The rows are those of the official files. Raises UserError unless all three are about the same questions.
    """
    asked = [row["question_id"] for row in questions]
    check_ids((row["question_id"] for row in annotations), asked, ("annotations", "questions"))
    check_ids((row["question_id"] for row in predictions), asked, ("predictions", "questions"))
    answers = {row["question_id"]: row["answer"] for row in predictions}
    accuracies, by_question_type, by_answer_type = {}, defaultdict(list), defaultdict(list)
    for row in annotations:
        accuracy = answer_accuracy(answers[row["question_id"]], row["answers"])
        accuracies[row["question_id"]] = accuracy
        by_question_type[row["question_type"]].append(accuracy)
        by_answer_type[row["answer_type"]].append(accuracy)
    return {
        "overall": _percent(list(accuracies.values())),
        "perAnswerType": {kind: _percent(found) for kind, found in by_answer_type.items()},
        "perQuestionType": {kind: _percent(found) for kind, found in by_question_type.items()},
        "perQuestion": {question: _percent([accuracy]) for question, accuracy in accuracies.items()},
    }


def answer_accuracy(answer: str, annotators: list[dict[str, Any]]) -> float:
    """Accuracy, 0 to 1: the mean over all choices of nine annotators of min(1, how many of them gave it / 3)."""
    answer = _one_line(answer)
    annotators = [one | {"answer": _one_line(one["answer"])} for one in annotators]
    if len({one["answer"] for one in annotators}) > 1:  # where all wrote the same, neither side is normalised
        answer = normalise_answer(answer)
        annotators = [one | {"answer": normalise_answer(one["answer"])} for one in annotators]
    agreeing = [one for one in annotators if one["answer"].lower() == answer.lower()]
    # The one left out is compared as a whole row, id included: rows that are equal leave together.
    choices = [min(1, sum(other != left_out for other in agreeing) / 3) for left_out in annotators]
    return sum(choices) / len(choices)


def score_files(predictions: str, annotations: str, questions: str) -> dict[str, Any]:
    """`score` of the official JSON files at these paths. Raises UserError for files of another form."""
    annotation_rows = read_rows(annotations, "annotations", ANNOTATION, inside="annotations")
    for row in annotation_rows:
        source = f"annotations={annotations}, question {row['question_id']}"
        check_rows(enumerate(row["answers"]), {"answer": str}, source)
        if not row["answers"]:
            raise UserError(f"{source} has no answers: give a file of annotations with them.")
    return score(
        read_rows(predictions, "predictions", PREDICTION),
        annotation_rows,
        read_rows(questions, "questions", QUESTION, inside="questions"),
    )


def check_submission(predictions_path: str, questions_path: str, split: str = "test") -> str:
    """One line that says that the server would take the predictions; UserError with the reason where it would not.

    split: test, which is what the server takes; or test-dev, to check answers to its questions alone.
    """
    asked = read_rows(questions_path, "questions", QUESTION, inside="questions")
    subset, wanted = read_json(questions_path, "questions").get("data_subtype"), f"{split}2015"
    if subset == "test-dev2015" != wanted:
        raise UserError(
            f"questions={questions_path} holds {subset} only, and the server wants all test2015 questions answered for "
            "test-dev, too: check against the test2015 questions, or say test_split=test-dev to check these alone."
        )
    if subset != wanted:
        raise UserError(
            f"questions={questions_path} holds {subset or 'questions that do not say which they are'}, not {wanted}: "
            f"the server takes answers to the test questions alone, so check against {wanted}'s."
        )
    rows = read_rows(predictions_path, "predictions", PREDICTION)
    check_ids((row["question_id"] for row in rows), (row["question_id"] for row in asked), ("predictions", "questions"))
    answered = f"{len(rows)} questions are answered once each"
    if split == "test-dev":
        return f"{predictions_path}: {answered}, all of test-dev; the server takes a file that answers test2015's, too."
    return f"{predictions_path}: the server would take it, {answered}."


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _percent(accuracies: list[float]) -> float:
    return round(100 * sum(accuracies) / len(accuracies), 2) if accuracies else 0.0
