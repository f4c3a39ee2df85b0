"""What a run needs and leaves outside of its folders: no network, no file, and no half of one on a full disk."""

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from faults.trials import forked, say

from dvp import files
from dvp.checkpoints import folder as checkpoints
from dvp.checkpoints import read_checkpoint
from dvp.errors import UserError
from dvp.runs.compiled import PLACE

ROOT = Path(__file__).parents[2]
EXPERIMENT = "dvp_search_bert_vqa"


def run(settings: dict[str, Any], place: Path, *before: str) -> subprocess.CompletedProcess:
    """`python run.py with` the experiment, in a process whose home and temporary folder are empty ones in `place`."""
    own = {name: str(place / name.lower()) for name in ("HOME", "TMPDIR")}
    for folder in own.values():
        Path(folder).mkdir()
    words = [f"{key}={value}" for key, value in settings.items()]
    return subprocess.run(
        [*before, sys.executable, "-W", "ignore", ROOT / "run.py", "with", EXPERIMENT, *words],
        cwd=place,
        env={name: value for name, value in os.environ.items() if name != PLACE} | own,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def absolute(tiny: Callable[..., dict], tmp_path: Path) -> dict[str, Any]:
    """Settings of a short search with all that it writes, whose result lies in a folder of its own."""
    return tiny(EXPERIMENT, report=True, log_dir=tmp_path / "out" / "result")


def test_without_a_network_a_run_leaves_nothing_outside_its_folders(absolute, tmp_path: Path) -> None:
    alone = ("unshare", "-rn")
    try:
        refused = subprocess.run([*alone, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if refused.returncode:
        pytest.skip(f"unshare -rn is not permitted: {refused.stderr.strip()}")
    place = tmp_path / "place"
    place.mkdir()
    data = {path: path.stat().st_mtime_ns for path in Path(absolute["tokenizer"]).rglob("*")}
    done = run(absolute, place, *alone)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").rglob("search.json"))
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*")) == ["home", "tmpdir"]
    assert {path: path.stat().st_mtime_ns for path in Path(absolute["tokenizer"]).rglob("*")} == data


def on_a_full_disk(
    settings: dict[str, Any], place: Path, limit: int, off: Callable[[], Any] = lambda: None
) -> tuple[int, str]:
    """The exit code of a run and what it says where a file may have `limit` bytes: what is written last is cut off."""

    def call() -> None:
        off()
        before, told = resource.getrlimit(resource.RLIMIT_FSIZE), io.StringIO()
        try:
            with redirect_stdout(told), redirect_stderr(told):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
                say("with", EXPERIMENT, *(f"{key}={value}" for key, value in settings.items()))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            print(told.getvalue())

    return forked(call, place / "said.txt"), (place / "said.txt").read_text()


@pytest.mark.parametrize("limit", [200, 20_000, 60_000])
def test_a_full_disk_is_said_in_one_sentence_and_leaves_no_half_of_a_file(limit: int, absolute, tmp_path) -> None:
    code, text = on_a_full_disk(absolute, tmp_path, limit)
    assert code == 1
    assert "Traceback" not in text, text
    said = [line for line in text.splitlines() if "could not be written" in line]
    assert len(said) == 1 and "free the place" in said[0], text
    for path in (tmp_path / "out").rglob("*.ckpt"):
        read_checkpoint(str(path))
    for path in (tmp_path / "out").rglob("search.json"):
        json.loads(path.read_text())


def let_the_disk_speak() -> None:
    files.writing_to = lambda path: nullcontext()


def write_in_place() -> None:
    def write(path: Path, make: Callable[[Path], None]) -> None:
        with files.writing_to(path):
            path.parent.mkdir(exist_ok=True)
            make(path)

    checkpoints.write_whole = write


@pytest.mark.parametrize("off", [lambda: None, let_the_disk_speak, write_in_place])
def test_without_the_guards_a_full_disk_ends_in_a_traceback_or_leaves_half_of_a_checkpoint(
    off: Callable[[], None], absolute, tmp_path: Path
) -> None:
    code, text = on_a_full_disk(absolute, tmp_path, 60_000, off)
    assert code == 1
    halves = [path for path in (tmp_path / "out").rglob("*.ckpt") if not is_whole(path)]
    assert ("Traceback" in text) == (off is let_the_disk_speak)
    assert bool(halves) == (off is write_in_place)


def is_whole(checkpoint: Path) -> bool:
    try:
        return bool(read_checkpoint(str(checkpoint)))
    except UserError:
        return False
