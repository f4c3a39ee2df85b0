"""The processes that load data: they begin while nothing else runs, and a signal to all of a run is not for them."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

THREADS = Path("/proc/self/task")  # Linux has it
FORKS_SAFELY = (3, 11, 10)  # Python from then on
PATIENCE = 1.0  # seconds that a fork waits for other threads


def outlive_signals(worker: int) -> None:
    """Let this process end by the SIGTERM of its parent alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def come_to_rest() -> None:
    """Wait until no other thread of this process runs, for PATIENCE at most.

    A child that is forked just as a thread of gloo's enters Python waits for ever for a lock which that thread had
    (python/cpython#112275). Such a thread enters at the end of what processes do together, and then rests until the
    next time, which this one begins.
    """
    end = time.monotonic() + PATIENCE
    while _others_run() and time.monotonic() < end:
        time.sleep(0.001)


def _others_run() -> bool:
    own = str(threading.get_native_id())
    return any(_state(thread) in "RD" for thread in THREADS.iterdir() if thread.name != own)


def _state(thread: Path) -> str:
    """R: it runs, or would; D: it reads a page. S, of one that has ended meanwhile, too: it sleeps."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "S"


if sys.version_info < FORKS_SAFELY and THREADS.is_dir():
    os.register_at_fork(before=come_to_rest)
