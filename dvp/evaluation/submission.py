"""Files of answers: every question exactly once, checked before anything is written."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed

from dvp.errors import UserError
from dvp.files import write_json


class Submission(NamedTuple):
    """What becomes of a run's answers: the content of their file, what stands beside it, and what is said of them."""

    content: Any
    about: dict[str, Any]
    scores: dict[str, float]  # the official ones, in percent, where the answers' own table tells them
    words: str


def gather(rows: list[Any]) -> list[Any]:
    """The rows of all ranks, in the order of the ranks; alone, the rows themselves."""
    if not torch.distributed.is_initialized():
        return rows
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def predictions(answered: Sequence[tuple[Any, str]], questions: Sequence[Any], names: tuple[str, str]) -> Submission:
    """The official list of predictions, sorted by question; `names` are those of a question's id and of its answer.

    Raises UserError unless every one of `questions` is answered exactly once.
    """
    expected, counts = Counter(questions), Counter(question for question, _ in answered)
    twice = [question for question, count in expected.items() if count > 1]
    if twice:
        raise UserError(
            f"The test table holds question {twice[0]} twice ({len(twice)} such): convert the raw data again."
        )
    if expected != counts:
        lacking, extra = expected - counts, counts - expected
        raise UserError(f"Not written: {len(lacking)} questions without an answer, {len(extra)} answers too many.")
    rows = [dict(zip(names, pair, strict=True)) for pair in sorted(answered)]
    return Submission(rows, {}, {}, f"{len(rows)} answers written")


def write_submission(path: Path, submission: Submission, about: dict[str, Any]) -> None:
    """Write the answers, and `about` them beside as <name>.about.json; say so."""
    write_json(path, submission.content)
    write_json(path.with_suffix(".about.json"), submission.about | about)
    print(f"{submission.words} to {path}")
