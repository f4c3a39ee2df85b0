"""A conversion is whole or not there: killed before each of its file operations, and met by a second one."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tiny_world import picture

import dvp.prepare.tables as tables
from dvp import files
from dvp.data.arrow import check_answers, open_table, read_answers
from dvp.errors import UserError
from dvp.manifest import placing
from dvp.prepare import convert
from dvp.tasks import TASKS

GQA = TASKS["gqa"]
SPLITS = {"train": "train", "val": "val", "testdev": "test-dev"}
OPERATIONS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree")
SEEN = {"old", "new"}


def write_raw(raw: Path, picture: bytes, answers: list[str]) -> Path:
    """GQA with a question and an image per answer and split; another order of answers gives other labels."""
    (raw / "images").mkdir(parents=True)
    for split in SPLITS:
        rows = {}
        for place, answer in enumerate(answers):
            rows[f"{split}{place}"] = {"imageId": f"{split}{place}", "question": "What?", "answer": answer}
            (raw / "images" / f"{split}{place}.jpg").write_bytes(picture)
        (raw / f"{split}_balanced_questions.json").write_text(json.dumps(rows))
    return raw


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_child(work: Callable[[], Any]) -> int:
    """How a forked process that does this work ends: 0, or minus the signal that killed it."""
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_before(operation: int, root: Path, work: Callable[[], Any]) -> Callable[[], Any]:
    """The work, by a process that kills itself before its n-th operation on a file under `root`."""

    def run() -> None:
        left = count(operation, -1)

        def hook(event: str, args: tuple) -> None:
            if event in OPERATIONS and str(args[0]).startswith(str(root)) and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()

    return run


def read_all(root: Path) -> dict[str, Any]:
    """What a run would read: every table and the vocabulary, which belong together."""
    opened = {split: open_table(str(root), "gqa", split, GQA.columns) for split in SPLITS.values()}
    answers = read_answers(str(root), GQA)
    check_answers(opened.values(), answers)
    return {split: table["answers"].to_pylist() for split, table in opened.items()} | {"answers": answers}


@pytest.fixture
def worlds(tmp_path: Path) -> dict[str, Path]:
    """Two raw folders, old and new, whose vocabularies have other words at the same labels."""
    raw = {"old": ["red", "blue", "green"], "new": ["blue", "green", "black", "red"]}
    return {name: write_raw(tmp_path / name, picture(1), answers) for name, answers in raw.items()}


def states_after_kills(tmp_path: Path, worlds: dict[str, Path]) -> list[str]:
    """Per operation of a conversion of the new raw data over the old, what is read after a kill before it."""
    made, expected = {}, {}
    for name, raw in worlds.items():
        convert("gqa", str(raw), str(tmp_path / f"{name}_made"))
        made[name] = contents(tmp_path / f"{name}_made")
        expected[name] = read_all(tmp_path / f"{name}_made")
    found, root = [], tmp_path / "data"
    for operation in count():
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(tmp_path / "old_made", root)
        ended = in_child(killed_before(operation, root, lambda: convert("gqa", str(worlds["new"]), str(root))))
        try:
            seen = read_all(root)
            found.append(next((name for name, right in expected.items() if seen == right), "mixed"))
        except UserError as error:
            found.append(str(error))
        if ended == 0:
            assert contents(root) == made["new"]
            return found
        assert ended == -signal.SIGKILL
        convert("gqa", str(worlds["old"]), str(root))
        assert contents(root) == made["old"], f"leftovers after a kill before operation {operation}"
    raise AssertionError


def test_a_kill_leaves_the_old_tables_or_the_new_ones_and_the_next_conversion_clears_up(
    tmp_path: Path, worlds: dict[str, Path], capsys: Any
) -> None:
    found = states_after_kills(tmp_path, worlds)
    assert set(found) == SEEN and len(found) > 20
    assert found == sorted(found, key=["old", "new"].index)  # at one stroke


def one_by_one(folder: Path, root: Path, files: str) -> None:
    """As it was: files put in place one after the other, and no word of it."""
    for path in sorted(folder.iterdir()):
        path.replace(root / path.name)


def test_without_the_stroke_a_kill_leaves_a_mixture(
    tmp_path: Path, worlds: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "put_in_place", one_by_one)
    found = states_after_kills(tmp_path, worlds)
    refused = set(found) - SEEN
    assert refused and all("of another conversion than gqa_manifest.json" in text for text in refused)


def test_a_stopped_conversion_that_cannot_be_finished_is_refused(
    tmp_path: Path, worlds: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "PATIENCE", 0.3)
    convert("gqa", str(worlds["old"]), str(tmp_path / "data"))
    (tmp_path / "data" / ".gqa.converted").mkdir()
    (tmp_path / "data" / ".gqa.converted" / "gqa_train.arrow").write_bytes(b"")
    (tmp_path / "data" / "gqa_train.arrow").unlink()
    (tmp_path / "data" / "gqa_train.arrow").mkdir()
    with pytest.raises(UserError, match="was stopped while its files were put in place, and they cannot be moved"):
        read_all(tmp_path / "data")


@pytest.mark.parametrize("locked", [True, False])
def test_of_two_conversions_at_once_the_second_is_refused(
    locked: bool, tmp_path: Path, worlds: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is killed in the end: it holds nothing, and what it left is removed."""
    if not locked:
        monkeypatch.setattr(tables, "alone_in", lambda root: nullcontext())
    root, (read, write) = tmp_path / "data", os.pipe()
    child = os.fork()
    if not child:
        with tables.writing(str(root), "gqa", {}) as first:
            (first.folder / "half").write_text("half")
            os.write(write, b"x")
            signal.pause()
    os.read(read, 1)
    if locked:
        with pytest.raises(UserError, match=f"Another conversion writes into {root}: wait"):
            convert("gqa", str(worlds["new"]), str(root))
        assert not list(root.glob("*.arrow"))
    else:
        convert("gqa", str(worlds["new"]), str(root))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert [path for path in root.iterdir() if path.name.startswith(".gqa.converting-")]
    if locked:
        convert("gqa", str(worlds["old"]), str(root))
        assert not [path for path in root.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["gqa_train.arrow", "gqa_train.arrow.tmp", "gqa_answers.json", "gqa_manifest.json"])
def test_no_planted_link_is_followed(name: str, tmp_path: Path, worlds: dict[str, Path]) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).symlink_to(tmp_path / "precious")
    convert("gqa", str(worlds["old"]), str(tmp_path / "data"))
    assert (tmp_path / "precious").read_text() == "mine"
    assert len(read_all(tmp_path / "data")) == 4


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_link_under_a_name_that_was_foreseen_is_not_followed(
    exclusive: bool, tmp_path: Path, worlds: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two guards: a folder under a name that nobody can foresee, and files that are made anew."""
    foreseen = tmp_path / "data" / ".gqa.tmp"
    foreseen.mkdir(parents=True)
    (tmp_path / "precious").write_text("mine")
    (foreseen / "gqa_train.arrow").symlink_to(tmp_path / "precious")
    monkeypatch.setattr(tables, "staged", lambda root, files: nullcontext(foreseen))
    if exclusive:
        with pytest.raises(UserError, match="stopped and left nothing behind"):
            convert("gqa", str(worlds["old"]), str(tmp_path / "data"))
    else:
        monkeypatch.setattr(tables, "open", lambda path, mode, **how: open(path, f"w{mode[1:]}", **how), raising=False)
        convert("gqa", str(worlds["old"]), str(tmp_path / "data"))
    assert ((tmp_path / "precious").read_bytes() == b"mine") == exclusive


@pytest.mark.parametrize("guarded", [True, False])
def test_a_planted_lock_is_not_followed(
    guarded: bool, tmp_path: Path, worlds: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".converting.lock").symlink_to(tmp_path / "elsewhere")
    if guarded:
        with pytest.raises(UserError, match="stopped and left nothing behind"):
            convert("gqa", str(worlds["old"]), str(tmp_path / "data"))
    else:
        monkeypatch.setattr(os, "O_NOFOLLOW", 0)
        monkeypatch.setattr(files, "_same", lambda lock, path: True)
        convert("gqa", str(worlds["old"]), str(tmp_path / "data"))
    assert (tmp_path / "elsewhere").exists() != guarded
