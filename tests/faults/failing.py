"""A run of which one process fails: failing.py <how> <rank> [alone] with ...; how is a key of FAILURES.

alone: without the guard that ends the others, too.
"""

import os
import resource
import signal
import sys
from contextlib import nullcontext
from typing import Any

import run
from dvp.module import DVPModule
from dvp.runs import stopping


def raise_error() -> None:
    """What any mistake in the code does."""
    raise ValueError("the flux is out of balance")


FAILURES = {
    "exception": raise_error,
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "full disk": lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (20_000, 20_000)
    ),  # of which nothing more is written
}


def main() -> None:
    """Fails in the fifth pass on one rank."""
    how, rank, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    if words[0] == "alone":
        words = words[1:]
        stopping.Together = lambda *watched: nullcontext()
    before, passes = DVPModule.training_step, 0

    def training_step(self: DVPModule, *args: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes == 5 and self.global_rank == rank:
            FAILURES[how]()
        return before(self, *args)

    DVPModule.training_step = training_step
    run.ex.run_commandline(["run.py", *words])


if __name__ == "__main__":
    main()
