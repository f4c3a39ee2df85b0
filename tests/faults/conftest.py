"""The tiny world of the runs that are killed, the runs that all tests share, made once, and a place for files."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.trials import Kill, make_world, once, outcome

# By val_check_interval. One of them ends with a report, as most runs do, which takes as long as all the rest.
INTERVALS: dict[float, dict[str, Any]] = {1.0: {"save_every": 1, "report": False}, 0.5: {"save_every": 2}}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[dict[str, Any], Path]]:
    """The settings of a kind of run under a val_check_interval, and the log_dir that it left, killed or at its end."""
    world = make_world(tmp_path_factory.mktemp("world") / "world")
    log_dirs: dict[tuple[str, float, Kill | None], Path] = {}

    def make(kind: str, interval: float = 1.0, kill: Kill | None = None) -> tuple[dict[str, Any], Path]:
        settings = world | {"val_check_interval": interval} | INTERVALS[interval]
        if (kind, interval, kill) not in log_dirs:
            log_dir = tmp_path_factory.mktemp("made") / "run"
            assert once(kind, settings, log_dir, kill) == bool(kill)
            log_dirs[kind, interval, kill] = log_dir
        return settings, log_dirs[kind, interval, kill]

    return make


@pytest.fixture(scope="session")
def whole(made: Callable[..., Any]) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """The settings of a kind of run under a val_check_interval, and how it ends when it is never stopped."""
    ends: dict[tuple[str, float], dict[str, Any]] = {}

    def make(kind: str, interval: float = 1.0) -> tuple[dict[str, Any], dict[str, Any]]:
        settings, log_dir = made(kind, interval)
        if (kind, interval) not in ends:
            ends[kind, interval] = outcome(log_dir)
        return settings, ends[kind, interval]

    return make


@pytest.fixture
def copied(made: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """Makes a log_dir `name` with what a kind of run has left that was killed, or never stopped, to go on from."""

    def copy(kind: str, kill: Kill | None = None, name: str = "run") -> Path:
        return Path(shutil.copytree(made(kind, kill=kill)[1], tmp_path / name, symlinks=True))

    return copy


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a module's files."""
    return tmp_path_factory.mktemp("hostile")
