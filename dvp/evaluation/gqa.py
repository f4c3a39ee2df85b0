"""GQA's official accuracy (eval.py of visualreasoning.net): an answer counts when it is the right one to the letter."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from dvp.errors import UserError
from dvp.evaluation.inputs import check_ids, check_rows, read_json, read_rows

PREDICTION = {"questionId": str, "prediction": str}
QUESTION = {"question": str, "answer": str, "isBalanced": bool, "semantic": list, "types": dict}
UNCOUNTED_STEPS = ("exist", "query: name", "choose name")  # they only read out what earlier steps have found


def steps(question: dict[str, Any]) -> int:
    """The number of reasoning steps of the question's program."""
    program = [f"{step['operation']}: {step['argument']}" for step in question["semantic"]]
    return sum(not any(part in step for part in UNCOUNTED_STEPS) for step in program)


GROUPS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "structural type": lambda question: question["types"]["structural"],
    "semantic type": lambda question: question["types"]["semantic"],
    "steps number": steps,
    "words number": lambda question: len(question["question"].split()),
}


def score(predictions: list[dict[str, str]], questions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Percentages with two decimals over the balanced questions: binary, open, accuracy (both), and "by" type.

    "by" maps a kind of type to {type: [percent, questions]}. As in the official program, `predictions` may answer more
    than these questions. Raises UserError when a question is unanswered or answered twice.
    """
    balanced = {key: question for key, question in questions.items() if question["isBalanced"]}
    check_ids((row["questionId"] for row in predictions), balanced, ("predictions", "questions"), more=True)
    answers = {row["questionId"]: row["prediction"] for row in predictions}
    form = {"binary": [], "open": [], "accuracy": []}
    by = {kind: defaultdict(list) for kind in GROUPS}
    for key, question in balanced.items():
        right = float(answers[key] == question["answer"])
        form["open" if question["types"]["structural"] == "query" else "binary"].append(right)
        form["accuracy"].append(right)
        for kind, of in GROUPS.items():
            by[kind][of(question)].append(right)
    counted = {
        kind: {str(name): [_percent(found[name]), len(found[name])] for name in sorted(found)}
        for kind, found in by.items()
    }
    return {name: _percent(found) for name, found in form.items()} | {"by": counted}


def score_files(predictions: str, annotations: str, questions: str) -> dict[str, Any]:
    """`score` of the JSON files at these paths; GQA's questions hold the answers, so one of the last two will do."""
    setting, path = ("questions", questions) if questions else ("annotations", annotations)
    content = read_json(path, setting)
    if not isinstance(content, dict):
        raise UserError(f"{setting}={path} is not an object of questions by id: give GQA's questions file.")
    check_rows(content.items(), QUESTION, f"{setting}={path}")
    for key, question in content.items():
        check_rows([(key, question["types"])], {"structural": str, "semantic": str}, f"{setting}={path}")
        check_rows(enumerate(question["semantic"]), {"operation": str, "argument": str}, f"{setting}={path}, {key}")
    return score(read_rows(predictions, "predictions", PREDICTION), content)


def _percent(right: list[float]) -> float:
    return round(sum(right) / len(right) * 100, 2) if right else 0.0
