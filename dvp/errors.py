"""What the user is told, without a traceback, when the input or the settings are wrong."""

from sacred.utils import SacredError


class UserError(SacredError):
    """One sentence: what was wrong, where, and what to do about it. Sacred prints it alone and exits with code 1."""

    def __init__(self, sentence: str):
        super().__init__(sentence, print_traceback=False)
