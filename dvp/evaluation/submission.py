"""Files of answers: every question exactly once, checked before anything is written, never over another run's."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed

from dvp.checkpoints import digest
from dvp.counting import number_of
from dvp.errors import UserError
from dvp.files import locked, read_json, remove, require_writable, write_json, writing_to

FORMAT = 1  # of the note beside answers
LOCK, MADE = ".answers.lock", ".answers-"  # in the folder of answers: meanwhile, and what is still being made


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
    return Submission(rows, {}, {}, f"{number_of(len(rows), 'answer')} written")


def write_submission(path: Path, submission: Submission, about: dict[str, Any], checkpoint: str = "") -> Path:
    """Write the answers, and `about` them beside, as `write_answers` does; returns where, and says it."""
    place = write_answers(path, submission.content, submission.about | about, checkpoint)
    print(f"{submission.words} to {place}")
    return place


def write_answers(path: Path, content: Any, about: dict[str, Any], checkpoint: str) -> Path:
    """Write a checkpoint's answers as JSON, and `about` beside them as <name>.about.json; returns where.

    That is `path`, or, where this holds the answers of other weights, a place named after the checkpoint's run, too.
    Whenever it is killed, the note tells of the answers beside it, or that these are about to be replaced.
    """
    weights, whose = "", {"format": FORMAT}
    if checkpoint:
        weights = digest(checkpoint)
        whose |= {"checkpoint": {"path": str(Path(checkpoint).resolve()), "sha256": weights}}
    require_writable(path.parent)
    with writing_to(path), locked(path.parent / LOCK):  # of two tests that end together one gets the name
        for left in path.parent.glob(f"{MADE}*"):  # by killed ones
            remove(left)
        place = next(place for place in _places(path, checkpoint) if _free_or_own(place, weights, checkpoint))
        note = place.with_suffix(".about.json")
        with tempfile.TemporaryDirectory(prefix=MADE, dir=path.parent) as folder:
            made = [Path(folder, name) for name in ("unfinished", "answers", "about")]
            for one, what in zip(made, (whose | {"unfinished": True}, content, whose | about), strict=True):
                write_json(one, what)
            for one, final in zip(made, (note, place, note), strict=True):
                one.replace(final)
    if place != path:
        print(f"{path} holds another checkpoint's answers (its .about.json says whose) and stays; these go elsewhere.")
    return place


def _free_or_own(place: Path, weights: str, checkpoint: str) -> bool:
    note = place.with_suffix(".about.json")
    return not (place.exists() or note.exists()) or _owner(note, checkpoint) in (weights, checkpoint)


def _places(path: Path, checkpoint: str) -> Iterator[Path]:
    yield path
    parents = [name for name in Path(checkpoint).resolve().parent.parts[-3:] if name != "checkpoints"]
    name = Path(checkpoint).stem
    named = f"{path.stem.removesuffix(name)}{'_'.join(parents[-2:])}_{name}"
    yield path.with_name(f"{named}.json")
    yield from (path.with_name(f"{named}_{number}.json") for number in count(2))


def _owner(note: Path, checkpoint: str) -> str | None:
    """What the answers beside a note are of: the hash of the weights, or of older notes `checkpoint` if it is that."""
    try:
        about = read_json(note)
    except UserError:  # somebody's own answers
        return None
    inner = {key: about[key] if isinstance(about.get(key), dict) else {} for key in ("checkpoint", "config")}
    if "checkpoint" in about:
        return inner["checkpoint"].get("sha256")
    loaded = str(inner["config"].get("load_path", ""))
    return checkpoint if Path(loaded).resolve() == Path(checkpoint).resolve() else None
