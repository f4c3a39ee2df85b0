"""Killed anywhere, by SIGKILL, and started again with resume_from=auto, a run ends as one that never stopped."""

import os
import random
import shutil
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import pytest
from faults.trials import EXPERIMENTS, Kill, arm, divergences, draw, forked, once, outcome, to_the_end

from dvp.checkpoints import TrainedOnly, read_progress
from dvp.data import QuestionData
from dvp.errors import UserError
from dvp.files import remove_leftovers, write_link, write_whole
from dvp.module import DVPModule
from dvp.runs import auto, folder, saving
from dvp.runs.saving import Best
from dvp.runs.table import Table
from dvp.search import KArmedBandit

KILLS = 10  # of each kind under each interval between validations
WHAT = ("within", "writes", "within", "writes", "within")  # more than half of them within an epoch
AUTO = {"resume_from": "auto"}


@pytest.mark.parametrize("interval", [1.0, 0.5])
@pytest.mark.parametrize("kind", EXPERIMENTS)
def test_kills_change_nothing(kind: str, interval: float, whole, tmp_path: Path) -> None:
    settings, expected = whole(kind, interval)
    generator, died, trial = random.Random(f"{kind} {interval}"), 0, 0
    while died < KILLS:
        log_dir, trial = tmp_path / f"run{trial}", trial + 1
        kills = [draw(generator, what, share=0.4) for what in islice(cycle(WHAT), died, min(died + 4, KILLS))]
        died += to_the_end(kind, settings, log_dir, kills)
        assert divergences(expected, outcome(log_dir)) == [], kills
    assert died == KILLS


def test_the_run_that_never_stopped_has_what_could_be_lost(whole) -> None:
    _, expected = whole("search")
    assert expected["best"] != [] and expected["best"] != ["epoch=2-step=12.ckpt"]  # later epochs do not beat it
    assert b"train/loss" in expected["metrics"] and expected["finished"] and len(expected["trace"]) == 12
    # From the second of 12 updates on the arms earn differently, so that preferences are there to be lost.
    moved = [len(set(step["scores"])) > 1 for step in expected["trace"]]
    assert moved.index(True) < 3 and sum(moved) > 4 and all(expected["preferences"])


def test_a_search_is_killed_amidst_preferences_that_have_moved(whole, copied) -> None:
    settings, expected = whole("search")
    log_dir, off = (copied("search", Kill("passes", 12), name) for name in ("run", "off"))
    (last,) = log_dir.rglob("last.ckpt")
    preferences = TrainedOnly().load_checkpoint(str(last))["bandit"]["preferences"].tolist()
    assert all(preferences) and preferences != expected["preferences"]
    assert not once("search", settings | AUTO, log_dir)
    assert divergences(expected, outcome(log_dir)) == []
    assert not once("search", settings | AUTO, off, off=forget_bandit)
    assert "preferences" in divergences(expected, outcome(off))


def test_a_search_by_the_mean_goes_on_as_one_that_never_stopped(whole, tmp_path: Path) -> None:
    settings = whole("search")[0] | {"kab": "mean"}
    once("search", settings, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    assert expected["finished"] and len(expected["trace"]) == 6 and len(set(expected["mean_scores"])) > 1
    kills = [Kill("within", 4), Kill("writes", 40), Kill("within", 6)]
    assert to_the_end("search", settings, tmp_path / "run", kills) == 3
    assert divergences(expected, outcome(tmp_path / "run")) == []


def test_a_run_goes_on_with_none_of_other_settings(whole, tmp_path: Path) -> None:
    settings, expected = whole("training")
    log_dir = tmp_path / "run"
    for other in ({"learning_rate": 0.02}, {"lr_mult": 3}):
        assert once("training", settings | other, log_dir, Kill("passes", 9))
    assert not once("training", settings | AUTO, log_dir)
    assert log_dir.with_suffix(".txt").read_text().count("passes over 2 runs of other settings") == 1
    one = tmp_path / "one" / "run" / "version_0"
    shutil.copytree(next(log_dir.glob("*/version_2")), one, symlinks=True)
    assert divergences(expected, outcome(tmp_path / "one")) == []


@pytest.mark.parametrize("asked", ["last", "its path"])
def test_a_finished_search_whose_record_is_gone_writes_it_again(asked: str, whole, copied) -> None:
    settings, expected = whole("search")
    log_dir = copied("search")
    (record,) = log_dir.rglob("search.json")
    record.unlink()
    path = record.parent / "checkpoints" / "last.ckpt"
    once("search", settings | {"resume_from": path if asked == "its path" else asked}, log_dir)
    (record,) = log_dir.rglob("search.json")
    assert record.parent.name == ("version_1" if asked == "its path" else "version_0")
    if asked == "last":
        assert divergences(expected, outcome(log_dir)) == []


@pytest.mark.parametrize("file", ["weights.safetensors", "training.safetensors", "training.json", "description.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(file: str, whole, copied) -> None:
    settings, expected = whole("training")
    log_dir = copied("training", Kill("passes", 14))
    (last,) = log_dir.rglob("last.ckpt")
    damaged = last.resolve()
    (damaged / file).write_bytes((damaged / file).read_bytes()[:-20])
    with pytest.raises(UserError):
        TrainedOnly().load_checkpoint(str(damaged))
    assert not once("training", settings | AUTO, log_dir)
    said = log_dir.with_suffix(".txt").read_text()
    assert f"{damaged} is damaged" in said and f"goes on from {damaged.parent / 'last-epoch=1-pass=2.ckpt'}" in said
    assert divergences(expected, outcome(log_dir)) == []


def test_two_cannot_go_on_in_one_folder(made, copied) -> None:
    settings, log_dir = made("training")[0], copied("training", Kill("passes", 14))
    (version,) = log_dir.glob("*/version_0")
    assert folder.take(version)  # by this process
    with pytest.raises(AssertionError, match="is still being written by another process"):
        once("training", settings | AUTO, log_dir)
    assert not once("training", settings | AUTO, log_dir, off=take_without_asking)


def test_in_another_folder_the_best_so_far_is_remembered(whole, made, tmp_path: Path) -> None:
    settings, expected = whole("search")
    other = tmp_path / "other"
    (last,) = made("search", kill=Kill("passes", 14))[1].rglob("last.ckpt")
    assert not once("search", settings | {"resume_from": last}, other)
    assert divergences(expected, outcome(other)) == []
    assert not once("search", settings | {"resume_from": last}, tmp_path / "off", off=forget_best)
    assert "best" in divergences(expected, outcome(tmp_path / "off"))


# Without a guard


def forget_best() -> None:
    Best.load_state_dict = lambda self, state: None
    Best._take_over = lambda self, beside: None


def take_without_asking() -> None:
    folder._locked = lambda file, patience: True


def forget_bandit() -> None:
    KArmedBandit.load_state_dict = lambda self, state: None


def begin_data_anew() -> None:
    QuestionData.position = property(lambda self: (0, 0), lambda self, value: None)


def forget_table() -> None:
    Table.load_state_dict = lambda self, state: None


def forget_pending_row() -> None:
    Table.pending = property(lambda self: False, lambda self, value: None)


def write_no_search_where_nothing_is_left() -> None:
    DVPModule.on_train_end, DVPModule.on_fit_end = DVPModule.on_fit_end, lambda self: None


def keep_leftovers() -> None:
    folder.remove_leftovers = lambda place: None


def take_any_run() -> None:
    auto._differ = lambda *settings: False


def take_any_checkpoint() -> None:
    auto.TrainedOnly = type("Unread", (), {"load_checkpoint": lambda self, path: None})


GUARDS: dict[str, tuple[Callable[[], None], Kill, set[str]]] = {
    "best": (forget_best, Kill("passes", 14), {"best"}),
    "data": (begin_data_anew, Kill("passes", 14), {"last", "metrics"}),
    "table": (forget_table, Kill("passes", 14), {"metrics"}),
    "pending row": (forget_pending_row, Kill("passes", 21), {"metrics"}),
    "leftovers": (keep_leftovers, Kill("os.rename", 4), {"hidden"}),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_without_a_guard_a_kill_shows(guard: str, whole, tmp_path: Path) -> None:
    off, kill, differ = GUARDS[guard]
    settings, expected = whole("search")
    assert to_the_end("search", settings, tmp_path / "run", [kill], off) == 1
    assert differ <= {key.partition(":")[0] for key in divergences(expected, outcome(tmp_path / "run"))}


@pytest.mark.parametrize("kill", dict.fromkeys(kill for _, kill, _ in GUARDS.values()), ids=str)
def test_with_them_it_does_not(kill: Kill, whole, copied) -> None:
    settings, expected = whole("search")
    log_dir = copied("search", kill)
    assert not once("search", settings | AUTO, log_dir)
    assert divergences(expected, outcome(log_dir)) == []


def test_without_the_guard_a_finished_search_that_goes_on_has_no_record(made, copied) -> None:
    settings, log_dir = made("search")[0], copied("search")
    (record,) = log_dir.rglob("search.json")
    record.unlink()
    once("search", settings | AUTO, log_dir, off=write_no_search_where_nothing_is_left)
    assert not record.exists()


def test_without_the_guard_a_run_goes_on_with_one_of_other_settings(whole, tmp_path: Path) -> None:
    settings, expected = whole("training")
    log_dir = tmp_path / "run"
    assert once("training", settings | {"learning_rate": 0.02}, log_dir, Kill("passes", 9))
    assert not once("training", settings | AUTO, log_dir, off=take_any_run)
    assert "goes on from" in log_dir.with_suffix(".txt").read_text()
    assert "last: model.head.answer.weight" in divergences(expected, outcome(log_dir))


def test_without_the_guard_a_run_does_not_go_on_behind_a_damaged_checkpoint(made, copied) -> None:
    settings, log_dir = made("training")[0], copied("training", Kill("passes", 14))
    (last,) = log_dir.rglob("last.ckpt")
    (last / "weights.safetensors").write_bytes((last / "weights.safetensors").read_bytes()[:-20])
    with pytest.raises(AssertionError, match="is damaged"):
        once("training", settings | AUTO, log_dir, off=take_any_checkpoint)


def test_one_that_is_kept_would_not_do(made, tmp_path: Path) -> None:
    settings, two = made("training", kill=Kill("passes", 14))

    def keep_one() -> None:
        saving.KEPT = 1

    assert once("training", settings, tmp_path / "one", Kill("passes", 14), keep_one)
    for log_dir, kept in ((two, [2, 4]), (tmp_path / "one", [4])):
        (last,) = log_dir.rglob("last.ckpt")
        progress = [read_progress(str(path))["passes"] for path in last.parent.glob("last-*.ckpt")]
        assert sorted(progress) == kept


# last.ckpt, step by step


def switch(place: Path, write: Callable[[Path, str], None]) -> None:
    """A save: a new folder, and the link to it."""
    write_whole(place / "new.ckpt", lambda path: (path.mkdir(), (path / "a").write_text("new")))
    write(place / "last.ckpt", "new.ckpt")


def after_each_kill(tmp_path: Path, write: Callable[[Path, str], None]) -> list[str | None]:
    """What last.ckpt holds after a kill before each step of a save, until one comes to its end."""
    found: list[str | None] = []
    while True:
        place = tmp_path / str(len(found))
        (place / "old.ckpt").mkdir(parents=True)
        (place / "old.ckpt" / "a").write_text("old")
        (place / "last.ckpt").symlink_to("old.ckpt")

        def call(place: Path = place) -> None:
            arm(Kill("writes", len(found) + 1), place)
            switch(place, write)

        code = forked(call, tmp_path / "said.txt")
        remove_leftovers(place)
        assert not list(place.glob(".*"))
        held = place / "last.ckpt" / "a"
        found.append(held.read_text() if held.exists() else None)
        if code == 0:
            return found


def remove_first(path: Path, target: str) -> None:
    path.unlink()
    os.symlink(target, path)


def test_last_is_whole_after_a_kill_at_any_step_of_a_save(tmp_path: Path) -> None:
    found = after_each_kill(tmp_path, write_link)
    assert len(found) > 5 and found == ["old"] * (len(found) - 1) + ["new"]


def test_without_one_step_from_old_to_new_last_is_missing_after_some(tmp_path: Path) -> None:
    assert None in after_each_kill(tmp_path, remove_first)
