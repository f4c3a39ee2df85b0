"""The official evaluation: accuracies equal to those of the task owners' own programs, and a look at submissions."""

from collections.abc import Iterator
from typing import Any

from dvp.errors import UserError
from dvp.evaluation import gqa, scienceqa, vqa
from dvp.evaluation.vqa import check_submission

__all__ = ["SCORERS", "check_submission", "score_files"]

SCORERS = {
    "vqa": vqa.score_files,
    "gqa": gqa.score_files,
    "scienceqa": scienceqa.score_files,
}


def score_files(task: str, predictions: str, annotations: str, questions: str) -> None:
    """Print the official accuracies of a predictions file as a table; all but `task` are paths of official JSON files.

    Raises UserError for an unknown task, and for files that are missing, damaged or do not belong together.
    """
    if task not in SCORERS:
        raise UserError(f"task={task} has no official evaluation: take one of {', '.join(SCORERS)}.")
    scores = SCORERS[task](predictions, annotations, questions)
    print("\n".join(_lines({name: part for name, part in scores.items() if name != "perQuestion"})))


def _lines(scores: dict[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in scores.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from _lines(value, indent + "  ")
        else:
            percent, *count = value if isinstance(value, list) else [value]
            yield f"{indent}{name}".ljust(40) + f"{percent:7.2f}" + "".join(f"  of {n}" for n in count)
