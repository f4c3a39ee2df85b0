"""The processes that load data: a signal to all processes of a run is for the one that trains, and saves, alone."""

import os
import signal
import threading


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
