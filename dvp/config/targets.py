"""The setting `adapter_targets`: where PEFT's adapters go, as ends of the names of modules."""

import re
from collections.abc import Sequence
from typing import Any

WORDS = ("auto", "all-linear")  # PEFT's own for the language model; all of its linear layers
END = r"\w+(\.\w+)*"


def is_targets(value: Any) -> bool:
    """Whether a value is ends of names, separated by commas."""
    return type(value) is str and bool(re.fullmatch(f"{END}(,{END})*", value))


def targets_in(value: str | Sequence[str]) -> str | list[str]:
    """What the setting, of which its rule holds, names: one of WORDS, or a list in one order."""
    if value in WORDS:
        return value
    texts = [value] if isinstance(value, str) else value
    return sorted({end for text in texts for end in text.split(",")})
