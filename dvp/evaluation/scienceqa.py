"""ScienceQA's official accuracies in their nine columns, by subject, by context and by grade.

The rules are those of the official evaluation program (github.com/lupantech/ScienceQA).
"""

from collections.abc import Callable, Mapping
from typing import Any

from dvp.errors import UserError
from dvp.evaluation.inputs import check_ids, check_rows, read_json

PROBLEM = {"subject": str, "grade": str, "hint": str, "answer": int, "split": str}

COLUMNS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "NAT": lambda problem: problem["subject"] == "natural science",
    "SOC": lambda problem: problem["subject"] == "social science",
    "LAN": lambda problem: problem["subject"] == "language science",
    "TXT": lambda problem: bool(problem["hint"]),
    "IMG": lambda problem: bool(problem["image"]),
    "NO": lambda problem: not problem["hint"] and not problem["image"],
    # As in the official program, another grade (kindergarten) counts in the average alone.
    "G1-6": lambda problem: problem["grade"] in [f"grade{number}" for number in range(1, 7)],
    "G7-12": lambda problem: problem["grade"] in [f"grade{number}" for number in range(7, 13)],
    "Avg": lambda problem: True,
}


def score(results: Mapping[str, int], problems: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Percentages with two decimals; a column without a problem is left out.

    results: the index of the chosen choice by problem id, -1 where there is none. problems: those that are scored, with
    subject, hint, image, grade and answer. Raises UserError unless both are about the same problems.
    """
    check_ids(list(results), problems, ("predictions", "problems"))
    right = {pid: results[pid] == problem["answer"] for pid, problem in problems.items()}
    columns = {
        name: [right[pid] for pid, problem in problems.items() if belongs(problem)] for name, belongs in COLUMNS.items()
    }
    return {name: round(100 * sum(found) / len(found), 2) for name, found in columns.items() if found}


def score_files(predictions: str, annotations: str, questions: str = "") -> dict[str, float]:
    """`score` of an official results file on the test split of the official problems.json.

    There is no file of questions. Raises UserError for files of another form.
    """
    results = read_json(predictions, "predictions")
    results = results.get("results") if isinstance(results, dict) else None
    if not isinstance(results, dict) or not all(type(choice) is int for choice in results.values()):
        raise UserError(
            f'predictions={predictions} has no "results" with an index per problem: give the file that a test wrote.'
        )
    problems = read_json(annotations, "annotations")
    if not isinstance(problems, dict):
        raise UserError(f"annotations={annotations} is not ScienceQA's problems.json: give the official file.")
    check_rows(problems.items(), PROBLEM, f"annotations={annotations}")
    for pid, problem in problems.items():
        if not isinstance(problem.get("image", 0), str | None):
            raise UserError(
                f'annotations={annotations}: row {pid} has no "image" (a file\'s name or null), which says where it '
                "counts: take the official problems.json."
            )
    return score(results, {pid: problem for pid, problem in problems.items() if problem["split"] == "test"})


def table(scores: Mapping[str, float]) -> str:
    """The columns as two lines of text."""
    names = (name.rjust(6) for name in scores)
    return " ".join(names) + "\n" + " ".join(f"{value:6.2f}" for value in scores.values())
