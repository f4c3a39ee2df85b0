"""A run that is told to stop saves itself and says how to go on; where one process fails, all end. Nothing hangs."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from faults.trials import EXPERIMENTS, arm_signal, command, divergences, forked, once, outcome

from dvp.checkpoints import read_progress
from dvp.data import datamodule
from dvp.runs import saving, stopping

ROOT = Path(__file__).parents[2]
CODES = {"SIGTERM": 75, "SIGINT": 130}


def told_to_stop(settings: dict[str, Any], log_dir: Path, name: str, off: Callable[[], Any] = lambda: None) -> int:
    """The exit code of a search that gets a signal in its ninth pass."""

    def call() -> None:
        off()
        arm_signal(signal.Signals[name], 9)
        command("search", settings, log_dir=str(log_dir))

    return forked(call, log_dir.with_suffix(".txt"))


@pytest.mark.parametrize("name", CODES)
def test_a_signal_saves_behind_the_update_and_tells_how_to_go_on(name: str, whole, tmp_path: Path) -> None:
    settings, expected = whole("search")
    settings, log_dir = settings | {"save_every": "10 minutes"}, tmp_path / "run"
    assert told_to_stop(settings, log_dir, name) == CODES[name]
    (last,) = log_dir.rglob("last.ckpt")
    assert read_progress(str(last))["global_step"] == 5  # of two passes each
    assert json.loads((log_dir / "sacred" / "1" / "run.json").read_text())["status"] == "INTERRUPTED"
    said = log_dir.with_suffix(".txt").read_text()
    assert "Traceback" not in said and said.count("Go on with: ") == 1
    words = shlex.split(said.partition("Go on with: ")[2].partition("\n")[0])
    assert words[:3] == ["python", "run.py", "with"] and words[-1] == "resume_from=auto"
    going_on = dict(word.split("=", 1) for word in words[4:])
    assert not once("search", going_on, log_dir)
    assert divergences(expected, outcome(log_dir)) == []


def test_without_the_guard_a_signal_saves_nothing(whole, tmp_path: Path) -> None:
    settings, _ = whole("search")

    def off() -> None:
        saving.listen = stopping.listen = lambda then: None

    code = told_to_stop(settings | {"save_every": "10 minutes"}, tmp_path / "run", "SIGTERM", off)
    assert code != 75


def tell_all(group: int, signum: int) -> None:
    """Send a signal to all processes of a group, as a scheduler does: from outside of it."""
    if not (child := os.fork()):
        os.setsid()
        os.killpg(group, signum)
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_signal_to_all_processes_leaves_those_that_load_data_alone(guarded: bool, whole, tmp_path: Path) -> None:
    settings, _ = whole("search")
    log_dir = tmp_path / "run"

    def call() -> None:
        os.setsid()
        if not guarded:
            datamodule.outlive_signals = lambda worker: None
        arm_signal(signal.SIGTERM, 9, tell_all)
        command("search", settings, log_dir=str(log_dir), num_workers=2)

    said = log_dir.with_suffix(".txt")
    assert (forked(call, said) == CODES["SIGTERM"]) == guarded, said.read_text()[-3000:]


# Two processes, as Lightning starts them


@pytest.fixture
def start(whole, tmp_path: Path) -> Any:
    """Starts a search of two processes in a group of its own; what it says goes to a file."""
    settings, _ = whole("search")
    started: list[subprocess.Popen] = []

    def call(*how: str, **changes: Any) -> tuple[subprocess.Popen, Path]:
        log_dir = tmp_path / "run"
        options = settings | {"cpu_processes": 2, "max_epoch": 100_000, "save_every": 1, "log_dir": log_dir} | changes
        script = [str(ROOT / "run.py")] if not how else [str(Path(__file__).with_name("failing.py")), *how]
        words = [*script, "with", EXPERIMENTS["search"], *(f"{key}={value}" for key, value in options.items())]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with open(log_dir.with_suffix(".txt"), "w") as said:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=ROOT, env=environment, stdout=said, stderr=said, start_new_session=True
            )
        started.append(process)
        return process, log_dir

    yield call
    for process in started:
        if left(process):
            os.killpg(process.pid, signal.SIGKILL)


def left(process: subprocess.Popen) -> list[int]:
    """The processes of its group that are still there, but for those that only wait to be asked how they ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == process.pid and state != "Z":
            found.append(int(path.parent.name))
    return found


def ends(process: subprocess.Popen, seconds: float = 30) -> int:
    """The exit code of a run all of whose processes end within so many seconds."""
    end = time.monotonic() + seconds
    code = process.wait(seconds)
    while left(process) and time.monotonic() < end:
        time.sleep(0.1)
    assert left(process) == []
    return code


def begun(process: subprocess.Popen, log_dir: Path) -> None:
    """Waits for the first checkpoint."""
    end = time.monotonic() + 120
    while not list(log_dir.rglob("last.ckpt")):
        assert process.poll() is None and time.monotonic() < end, log_dir.with_suffix(".txt").read_text()[-3000:]
        time.sleep(0.2)


@pytest.mark.two_processes
@pytest.mark.parametrize("who", ["one", "all"])
def test_two_processes_save_together_whoever_is_told(who: str, start) -> None:
    process, log_dir = start(num_workers=1 if who == "all" else 0)
    begun(process, log_dir)
    if who == "all":  # those that load data, too, as schedulers do
        os.killpg(process.pid, signal.SIGTERM)
    else:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
    assert ends(process) == 75, log_dir.with_suffix(".txt").read_text()[-3000:]
    assert log_dir.with_suffix(".txt").read_text().count("Go on with: ") == 1
    assert json.loads((log_dir / "sacred" / "1" / "run.json").read_text())["status"] == "INTERRUPTED"


@pytest.mark.two_processes
def test_the_end_of_the_first_process_is_that_of_all(start) -> None:
    process, log_dir = start()
    begun(process, log_dir)
    process.kill()
    assert ends(process) == -signal.SIGKILL


FAILURES = {
    ("exception", "1"): ("ValueError: the flux is out of balance", "Process 1 of the run ended with exit code 1"),
    ("SIGKILL", "1"): ("Process 1 of the run was killed by SIGKILL", ""),
    ("full disk", "0"): ("could not be written", ""),
}


@pytest.mark.two_processes
def test_without_the_guard_nobody_says_which_process_was_killed(start) -> None:
    process, log_dir = start("SIGKILL", "1", "alone")
    with suppress(subprocess.TimeoutExpired):
        ends(process, 90)
    assert FAILURES["SIGKILL", "1"][0] not in log_dir.with_suffix(".txt").read_text()


@pytest.mark.two_processes
@pytest.mark.parametrize("how", FAILURES, ids=" ".join)
def test_one_process_fails_and_all_end_with_its_message_first(how: tuple[str, str], start) -> None:
    process, log_dir = start(*how)
    assert ends(process, 90) == 1  # with the seconds of its start
    said = log_dir.with_suffix(".txt").read_text()
    first, then = FAILURES[how]
    assert first in said and then in said[said.index(first) :]
    assert "Connection" not in said[: said.index(first)]
    assert json.loads((log_dir / "sacred" / "1" / "run.json").read_text())["status"] == "FAILED"


LEAVING = """
import atexit, sys
from types import SimpleNamespace
import torch.distributed as dist
from dvp.runs import stopping
atexit.register(lambda: print("in a group:", dist.is_initialized()))
if sys.argv[2] == "off":
    stopping.leave_group = lambda: None
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=None))
for fails in map(int, sys.argv[3]):
    with stopping.Together(trainer, print):
        1 / (1 - fails)
"""


@pytest.mark.parametrize(
    "guard, runs, inside",
    [("on", "0", False), ("on", "00", False), ("on", "01", True), ("off", "0", True)],
    ids=["one ends well", "two end well", "the second fails", "guard off"],
)
def test_the_group_is_left_where_all_went_well(guard: str, runs: str, inside: bool, tmp_path: Path) -> None:
    """Else gloo's threads may abort the process behind its end; who fails does not wait for what others still send."""
    words = [sys.executable, "-c", LEAVING, str(tmp_path / "meeting"), guard, runs]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert f"in a group: {inside}" in ended.stdout and ended.returncode == int("1" in runs), ended.stderr
