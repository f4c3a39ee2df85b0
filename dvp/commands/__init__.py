"""The command line: search, train, test (main.py) and the other verbs, all of one Sacred experiment."""

import atexit
import contextlib
import os

from dvp.commands import hooks, main, predict, search_and_train, sweep, verbs
from dvp.config import ex

__all__ = ["ex", "hooks", "main", "predict", "search_and_train", "start", "sweep", "verbs"]

COMPILED = "TORCHINDUCTOR_CACHE_DIR"  # where torch keeps what it compiled; it sets this itself where nobody has


def _leave_no_empty_cache() -> None:
    """Remove the folder that torch makes among the temporary ones at its import, where nothing was compiled."""
    with contextlib.suppress(OSError):  # what is not empty stays
        os.rmdir(os.environ.get(COMPILED, ""))


if COMPILED not in os.environ:
    atexit.register(_leave_no_empty_cache)


def start() -> None:
    """Run the command that was typed: `python run.py ...`, or `dvp ...` where the package is installed."""
    ex.run_commandline()
