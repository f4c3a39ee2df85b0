"""What is printed when nobody reads it any more, as behind `| head`."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNREAD = 128 + 13  # what a shell says of a program that SIGPIPE has ended


@contextmanager
def ends_where_unread() -> Iterator[None]:
    """Let the program end without a word, with UNREAD, where what reads its output has gone.

    Not by the signal itself, which would end a run at any other connection that breaks, too.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # else what is left is written behind all that could catch it
    except BrokenPipeError:
        if not _is_unread():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # where the rest goes
        sys.exit(UNREAD)


def _is_unread() -> bool:
    poll = select.poll()
    poll.register(sys.__stdout__.fileno(), 0)  # for what is told unasked: an error, or that the other side has gone
    return bool(poll.poll(0))
