"""Files of answers: every question exactly once, checked before anything is written, never over another run's."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed

from dvp.checkpoints import digest
from dvp.errors import UserError
from dvp.files import read_json, remove, require_writable, write_json


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
    twice = [question for question, times in expected.items() if times > 1]
    if twice:
        raise UserError(
            f"The test table holds question {twice[0]} twice ({len(twice)} such): convert the raw data again."
        )
    if expected != counts:
        lacking, extra = expected - counts, counts - expected
        raise UserError(
            f"Not written: {len(lacking)} questions without an answer, {len(extra)} answers too many; "
            "test again on the tables as they are now."
        )
    rows = [dict(zip(names, pair, strict=True)) for pair in sorted(answered)]
    return Submission(rows, {}, {}, f"{len(rows)} answers written")


def write_submission(path: Path, submission: Submission, about: dict[str, Any], checkpoint: str = "") -> Path:
    """Write the answers, and `about` them beside, as `write_answers` does; returns where, and says it."""
    place = write_answers(path, submission.content, submission.about | about, checkpoint)
    print(f"{submission.words} to {place}")
    return place


def write_answers(path: Path, content: Any, about: dict[str, Any], checkpoint: str) -> Path:
    """Write a checkpoint's answers as JSON, and `about` beside them as <name>.about.json; returns where.

    That is `path`, or, where this holds the answers of other weights, a place named after the checkpoint's run, too.
    """
    weights = digest(checkpoint) if checkpoint else ""
    about = (
        about | {"checkpoint": {"path": str(Path(checkpoint).resolve()), "sha256": weights}} if checkpoint else about
    )
    require_writable(path.parent)
    for place in _places(path, checkpoint):
        note = place.with_suffix(".about.json")
        if new := not place.exists() and _created(note):
            break
        if _owner(note, checkpoint) in (weights, checkpoint):
            break
    if place != path:
        print(f"{path} holds another checkpoint's answers (its .about.json says whose) and stays; these go elsewhere.")
    try:
        write_json(place, content)
        write_json(note, about)
    except BaseException:
        if new:
            remove(note)
        raise
    return place


def _places(path: Path, checkpoint: str) -> Iterator[Path]:
    yield path
    parents = [name for name in Path(checkpoint).resolve().parent.parts[-3:] if name != "checkpoints"]
    name = Path(checkpoint).stem
    named = f"{path.stem.removesuffix(name)}{'_'.join(parents[-2:])}_{name}"
    yield path.with_name(f"{named}.json")
    yield from (path.with_name(f"{named}_{number}.json") for number in count(2))


def _created(note: Path) -> bool:
    try:
        note.touch(exist_ok=False)  # one step: of two tests that end together one gets the name
    except FileExistsError:
        return False
    return True


def _owner(note: Path, checkpoint: str) -> str | None:
    """What the answers beside a note are of: the hash of the weights, or of older notes `checkpoint` if it is that."""
    try:
        about = read_json(note)
    except UserError:  # somebody's own answers; a note that is being written
        return None
    inner = {key: about[key] if isinstance(about.get(key), dict) else {} for key in ("checkpoint", "config")}
    if "checkpoint" in about:
        return inner["checkpoint"].get("sha256")
    loaded = str(inner["config"].get("load_path", ""))
    return checkpoint if Path(loaded).resolve() == Path(checkpoint).resolve() else None
