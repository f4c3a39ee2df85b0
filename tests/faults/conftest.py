"""The tiny world of the runs that are killed, the runs that never stopped, made once, and a place for files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.trials import make_world, once, outcome

INTERVALS = {1.0: 1, 0.5: 2}  # val_check_interval -> save_every


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, float], tuple[dict[str, Any], dict[str, Any]]]:
    """The settings of a kind of run under a val_check_interval, and how it ends when it is never stopped."""
    world = make_world(tmp_path_factory.mktemp("world") / "world")
    made: dict[tuple[str, float], dict[str, Any]] = {}

    def make(kind: str, interval: float = 1.0) -> tuple[dict[str, Any], dict[str, Any]]:
        settings = world | {"val_check_interval": interval, "save_every": INTERVALS[interval]}
        if (kind, interval) not in made:
            log_dir: Path = tmp_path_factory.mktemp("whole")
            assert not once(kind, settings, log_dir / "run")
            made[kind, interval] = outcome(log_dir / "run")
        return settings, made[kind, interval]

    return make


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a module's files."""
    return tmp_path_factory.mktemp("hostile")
