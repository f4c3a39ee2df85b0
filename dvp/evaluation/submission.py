"""Predictions files: every question exactly once, checked before anything is written."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch.distributed

from dvp.errors import UserError
from dvp.files import write_json


def gather(rows: list[Any]) -> list[Any]:
    """The rows of all ranks, in the order of the ranks; alone, the rows themselves."""
    if not torch.distributed.is_initialized():
        return rows
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def write_predictions(
    path: Path, rows: list[dict[str, Any]], questions: list[Any], id_name: str, about: dict[str, Any]
) -> None:
    """Write rows as JSON, sorted by question id, and `about` beside them as <name>.about.json.

    Refuses unless every one of `questions` is answered exactly once.
    """
    expected, answered = Counter(questions), Counter(row[id_name] for row in rows)
    twice = [question for question, count in expected.items() if count > 1]
    if twice:
        raise UserError(
            f"The test table holds question {twice[0]} twice ({len(twice)} such): convert the raw data again."
        )
    if expected != answered:
        lacking, extra = expected - answered, answered - expected
        raise UserError(
            f"Not written: {len(lacking)} questions without an answer, {len(extra)} answers too many ({path})."
        )
    write_json(path, sorted(rows, key=lambda row: row[id_name]))
    write_json(path.with_suffix(".about.json"), about)
    print(f"{len(rows)} answers written to {path}")
