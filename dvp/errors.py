"""What the user is told, without a traceback, when the input or the settings are wrong."""

import sys

from sacred.utils import SacredError, SacredInterrupt

PREEMPTED = 75  # "temporary failure, try again": what schedulers take for a job to start again


class UserError(SacredError):
    """One sentence: what was wrong, where, and what to do about it. A command prints it and ends with exit code 1."""

    def __init__(self, sentence: str):
        # A process that loads data hands its error on as the text of a traceback, which ends in the sentence.
        super().__init__(sentence.rpartition("UserError: ")[2].strip(), print_traceback=False)


def end_with(error: UserError) -> None:
    """Print the sentence, and end with exit code 1; in a log, which is no terminal, it stands behind a word to find."""
    print(error if sys.stderr.isatty() else f"UserError: {error}", file=sys.stderr)
    sys.exit(1)


class Stopped(SacredInterrupt):
    """A run was told to stop, and did. signal: SIGINT or SIGTERM; saved: its checkpoint, None where it has no new one.

    code: what the process ends with.
    """

    STATUS = "INTERRUPTED"

    def __init__(self, signal: str, saved: str | None):
        super().__init__(signal)
        self.signal, self.saved = signal, saved
        self.code = {"SIGINT": 130, "SIGTERM": PREEMPTED}[signal]
