"""Several commands one after another in one process, which torchrun starts: in_turn.py <words> -- <words> ...

Where the environment names a file as KILLED, rank 1 is killed in its fifth pass, once, and leaves that file.
"""

import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

import run
from dvp.module import DVPModule


def kill_once(mark: Path) -> None:
    """Let rank 1 kill itself in its fifth pass, unless it has been killed before."""
    before, passes = DVPModule.training_step, itertools.count(1)

    def training_step(self: DVPModule, *args: Any) -> Any:
        if next(passes) == 5 and self.global_rank == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return before(self, *args)

    DVPModule.training_step = training_step


def main() -> None:
    """Runs them; the first that fails is the last."""
    if mark := os.environ.get("KILLED"):
        kill_once(Path(mark))
    for end, words in itertools.groupby(sys.argv[1:], lambda word: word == "--"):
        if not end:
            run.ex.observers.clear()
            run.ex.run_commandline(["run.py", *words])


if __name__ == "__main__":
    main()
