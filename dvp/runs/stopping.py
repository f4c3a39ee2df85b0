"""A run that has to stop, told from outside or since another of its processes ended: what it says, what is left."""

import atexit
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

from dvp.errors import PREEMPTED, Stopped, UserError
from dvp.runs.folder import is_first_process

LOOK, PATIENCE = 0.2, 5.0  # seconds between looks at the other processes, and for a process to end by itself
WORDS = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM"}


def listen(then: Callable[[str], None]) -> None:
    """Let this process, and none that it forks, call `then` with the name of a SIGTERM or SIGINT."""
    owner = os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            then(signal.Signals(signum).name)

    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, handle)


def stop_at_once(name: str) -> None:
    """Raise Stopped: there is nothing to save."""
    raise Stopped(name, saved=None)


@contextmanager
def stoppable(words: Sequence[str] | None) -> Iterator[None]:
    """Let SIGTERM and SIGINT raise Stopped, and the first process say how to go on; words: what was typed."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    listen(stop_at_once)
    try:
        yield
    except Stopped as stopped:
        if is_first_process():
            print(f"\n{_told(stopped, words)}", file=sys.stderr, flush=True)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            for signum, handler in before.items():
                signal.signal(signum, handler)


def _told(stopped: Stopped, words: Sequence[str] | None) -> str:
    where = f"saved in {stopped.saved}" if stopped.saved else "nothing new was saved"
    if words is None:
        return f"Stopped by {WORDS[stopped.signal]}; {where}. Go on with resume_from=auto."
    program, *rest = words
    typed = [word for word in rest if not word.startswith("resume_from=")]
    python = [] if not program.endswith(".py") else ["python"]
    takes_it = not {"sweep"} & set(typed[:1])  # what is done there is found without
    going_on = shlex.join([*python, program, *typed, *(["resume_from=auto"] if takes_it else [])])
    return f"Stopped by {WORDS[stopped.signal]}; {where}. Go on with: {going_on}"


def leave_group() -> None:
    """Leave the group of processes that this one is in, if any.

    Lightning does so with NCCL alone. Threads of gloo's that are still there when Python ends may abort the process,
    and then torchrun, which sees a process that failed, starts all of them again.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Together:
    """Lets all processes of a run end when one does. The first sees those that Lightning started, they see the first.

    failed: told of the end of another process, in words, when this one waits for it in vain and so has to be ended.
    """

    def __init__(self, trainer: pl.Trainer, failed: Callable[[str], None]):
        self.trainer, self.failed = trainer, failed
        self.children: list[subprocess.Popen] = []
        self.parent = os.getppid()
        self.done = threading.Event()

    def __enter__(self) -> "Together":
        threading.Thread(target=self._watch, daemon=True, name="together").start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """End the others where this process fails; raises UserError, or Stopped, where it fails since another did."""
        if error is None:
            self.done.set()
            atexit.register(leave_group)
            return
        atexit.unregister(leave_group)  # of a run before: whoever fails does not wait for what others still send
        if self.children and isinstance(error, RuntimeError):  # what a broken connection looks like
            self._wait(lambda: self._ended() is not None)
        ended = self._ended() if isinstance(error, RuntimeError) else None
        if isinstance(error, Stopped):
            self._wait(lambda: all(child.poll() is not None for child in self.children))
        self.done.set()
        self._end_children()
        if ended and ended[1] == PREEMPTED:
            raise Stopped("SIGTERM", saved=None) from error
        if ended:
            raise UserError(self._words(*ended)) from error

    def _watch(self) -> None:
        launched = "LOCAL_RANK" in os.environ  # by Lightning or torchrun, whose end is the run's
        since = None
        while not self.done.wait(LOOK):
            if launched and os.getppid() != self.parent:
                os._exit(1)
            self._take_children()
            if since is None and self._ended():
                since = time.monotonic()
            if since is not None and time.monotonic() - since > 2 * PATIENCE:
                words = self._words(*self._ended())
                self._end_children()
                self.failed(words)
                print(words, file=sys.stderr, flush=True)
                os._exit(1)

    def _take_children(self) -> None:
        """Take over what Lightning started: it would kill this process without a word as soon as one of them ends."""
        started = getattr(self.trainer.strategy.launcher, "procs", [])
        self.children += started
        started.clear()

    def _ended(self) -> tuple[int, int] | None:
        """Rank and exit code of a process that failed."""
        return next(((rank, child.returncode) for rank, child in enumerate(self.children, 1) if child.poll()), None)

    def _words(self, rank: int, code: int) -> str:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return (
            f"Process {rank} of the run {how}, and so all have stopped: what it said stands above; mend that, "
            "and go on with resume_from=auto."
        )

    def _wait(self, over: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not over() and time.monotonic() < end:
            time.sleep(LOOK / 4)

    def _end_children(self) -> None:
        self._take_children()
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
