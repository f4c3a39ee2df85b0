"""What two processes do, as torchrun would start them, or one beside the other: forked, so that none has to import."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from multiprocessing.connection import wait
from typing import Any, NamedTuple, TextIO


def in_two_processes(call: Callable[..., Any], *args: Any, **settings: Any) -> None:
    """Calls the same in two processes that find each other; raises AssertionError where one fails."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]

    def one(rank: int) -> None:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
        os.environ.update({name: str(value) for name, value in ranks.items()})
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
        call(*args, **settings)

    processes = [
        multiprocessing.get_context("fork").Process(target=one, args=(rank,), daemon=True) for rank in range(2)
    ]
    for process in processes:
        process.start()
    wait([process.sentinel for process in processes])
    if any(process.exitcode for process in processes):  # the other one would wait for it
        for process in processes:
            process.terminate()
    for process in processes:
        process.join()
        assert process.exitcode == 0


class Beside(NamedTuple):
    """A forked process that has not begun: what lets it begin, waits for its end, and is printed by it."""

    begin: Callable[[], None]
    wait: Callable[[], None]
    said: TextIO


@contextmanager
def beside(call: Callable[[], None], seconds: float = 120) -> Iterator[Beside]:
    """Calls this in a process that shares no lock taken here from now on; AssertionError where it fails or hangs."""
    context = multiprocessing.get_context("fork")
    (reads, writes), began = os.pipe(), context.Event()

    def other() -> None:
        os.close(reads)
        began.wait()
        with os.fdopen(writes, "w", buffering=1) as said, redirect_stdout(said):
            call()

    process = context.Process(target=other, daemon=True)

    def wait_for_it() -> None:
        process.join(seconds)
        assert process.exitcode == 0

    process.start()
    os.close(writes)
    try:
        with os.fdopen(reads) as said:
            yield Beside(began.set, wait_for_it, said)
            wait_for_it()
    finally:
        process.kill()
