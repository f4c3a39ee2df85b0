"""Killed while it encodes, converts, tests or answers, the same command again leaves what one never killed leaves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.jobs import Job, make_jobs, read_answers
from faults.trials import Kill, arm, divergences, forked, make_world

from dvp.answering import many
from dvp.data import token_cache
from dvp.evaluation import submission
from dvp.evaluation.submission import write_answers
from dvp.files import write_json


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    folder = tmp_path_factory.mktemp("jobs")
    return make_jobs(make_world(folder / "world"), folder / "made")


@pytest.fixture(scope="module")
def expected(jobs: dict[str, Job], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What a job leaves that is never killed."""
    made: dict[str, dict[str, Any]] = {}

    def make(name: str) -> dict[str, Any]:
        if name not in made:
            place = tmp_path_factory.mktemp("whole") / name
            assert jobs[name].to_the_end(place, []) == 0
            made[name] = jobs[name].read(place)
        return made[name]

    return make


# Each in turn, and the next start is killed later.
KILLS = {
    "encode": [[Kill("writes", at) for at in (3, 18, 9, 4)], [Kill("os.remove", 4), Kill("os.rename", 3)]],
    "convert": [[Kill("writes", at) for at in (4, 12)], [Kill("os.rename", at) for at in (2, 3)]],
    "test": [[Kill("writes", at) for at in (38, 46)], [Kill("os.rename", at) for at in (5, 6, 7)]],
    "predict": [[Kill("writes", at) for at in (2, 3)], [Kill("answers", at) for at in (3, 2)]],
}


@pytest.mark.parametrize("kills", [0, 1])
@pytest.mark.parametrize("name", KILLS)
def test_the_same_command_again_leaves_the_same_bytes(name: str, kills: int, jobs, expected, tmp_path: Path) -> None:
    place = tmp_path / "run"
    assert jobs[name].to_the_end(place, KILLS[name][kills]) == len(KILLS[name][kills])
    assert divergences(expected(name), jobs[name].read(place)) == []


def keep_leftovers() -> None:
    token_cache.remove_leftovers = many.remove = submission.remove = lambda path: None


@pytest.mark.parametrize("name, at", [("encode", 7), ("test", 6), ("predict", 1)])
def test_without_the_guard_what_was_half_written_stays(name: str, at: int, jobs, expected, tmp_path: Path) -> None:
    place = tmp_path / "run"
    assert jobs[name].to_the_end(place, [Kill("os.rename", at)], off=keep_leftovers) == 1
    assert divergences(expected(name), jobs[name].read(place)) != []


# Answers and their note


def pair(path: Path) -> tuple[str | None, str | None]:
    """Of which test the answers are, and of which the note beside them says that they are."""
    note = path.with_suffix(".about.json")
    about = json.loads(note.read_text() or "{}") if note.exists() else {}
    return json.loads(path.read_text()) if path.exists() else None, about.get("of")


def after_each_kill(
    tmp_path: Path, again: bool, write: Callable[..., Any] | None = None
) -> list[tuple[str | None, str | None]]:
    """The answers and their note after a kill before each step of writing them, until one comes to its end.

    again: over those of another test of the same checkpoint. The same call again then has to end as if nothing was.
    """
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.mkdir()
    (checkpoint / "weights.safetensors").write_bytes(b"weights")
    found: list[tuple[str | None, str | None]] = []
    while True:
        path = tmp_path / str(len(found)) / "submit.json"

        def call(of: str, path: Path = path) -> None:
            (write or write_answers)(path, of, {"of": of}, str(checkpoint))

        if again:
            call("old")
        path.parent.mkdir(exist_ok=True)

        def killed(call: Callable[[str], None] = call, path: Path = path) -> None:
            arm(Kill("writes", len(found) + 1), path.parent)
            call("new")

        code = forked(killed, tmp_path / "said.txt")
        found.append(pair(path))
        call("new")
        if not write:
            assert pair(path) == ("new", "new") and len(read_answers(path.parent)) == 2
        if code == 0:
            return found


BELONG = {("old", "old"), ("new", "new")}  # of what says of which test it is


@pytest.mark.parametrize("again", [False, True], ids=["for the first time", "over others"])
def test_answers_and_their_note_belong_together_after_a_kill_at_any_step(again: bool, tmp_path: Path) -> None:
    found = after_each_kill(tmp_path, again)
    assert len(found) > 12 and found[-1] == ("new", "new")
    assert all(note is None or (answers, note) in BELONG for answers, note in found)


def one_after_the_other(path: Path, content: Any, about: dict[str, Any], checkpoint: str) -> None:
    write_json(path, content)
    write_json(path.with_suffix(".about.json"), about)


def test_without_the_word_between_new_answers_stand_beside_the_old_note(tmp_path: Path) -> None:
    assert ("new", "old") in after_each_kill(tmp_path, True, one_after_the_other)
