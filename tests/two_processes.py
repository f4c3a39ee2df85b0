"""What two processes do, as torchrun would start them, but forked: no start of Python to pay for."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any


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
