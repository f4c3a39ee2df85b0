"""The command line: search, train, test (main.py) and the other verbs, all of one Sacred experiment."""

from dvp.commands import compare, demo, doctor, export, hooks, main, predict, search_and_train, sweep, verbs
from dvp.config import ex

__all__ = [
    "compare",
    "demo",
    "doctor",
    "ex",
    "export",
    "hooks",
    "main",
    "predict",
    "search_and_train",
    "start",
    "sweep",
    "verbs",
]


def start() -> None:
    """Run the command that was typed: `python run.py ...`, or `dvp ...` where the package is installed."""
    ex.run_commandline()
