"""What the user is told, without a traceback, when the input or the settings are wrong."""


class UserError(Exception):
    """One sentence: what was wrong, where, and what to do about it. run.py prints it and exits with code 2."""
