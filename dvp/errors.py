"""What the user is told, without a traceback, when the input or the settings are wrong."""

from sacred.utils import SacredError


class UserError(SacredError):
    """One sentence: what was wrong, where, and what to do about it. Sacred prints it alone and exits with code 1."""

    def __init__(self, sentence: str):
        # A process that loads data hands its error on as the text of a traceback, which ends in the sentence.
        super().__init__(sentence.rpartition("UserError: ")[2].strip(), print_traceback=False)
