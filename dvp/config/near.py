"""What may have been meant by a value that a rule does not take."""

import re
from collections.abc import Iterator
from typing import Any

MANY = 2**31 - 1  # more rows, updates or tokens than any run has


def near(value: Any) -> Iterator[Any]:
    """What may have been meant by a value of another type: 1000 by 1e3, True by "true", 0.001 by YAML's "1e-3"."""
    if isinstance(value, str):
        yield from (value.lower(), value.upper())
        yield from (choice for choice in (True, False, None) if str(choice).lower() == value.lower())
        if re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", value):
            yield from (float(value), *near(float(value)))
    elif type(value) is float:
        yield from ((int(value),) if value.is_integer() else ())
        yield str(value)
    elif type(value) is int and abs(value) <= MANY:
        yield from (float(value), *((bool(value),) if value in (0, 1) else ()))
