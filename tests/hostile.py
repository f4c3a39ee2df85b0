"""How many cases the property tests make, and what a refusal is."""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

from dvp.errors import UserError

# The same cases in every run of the tests; HYPOTHESIS_CASES=<factor> makes so many times as many, others each time.
FACTOR = int(os.environ.get("HYPOTHESIS_CASES", "0"))


def cases(count: int) -> settings:
    """Settings of a property test of so many cases."""
    return settings(
        max_examples=count * max(1, FACTOR), derandomize=not FACTOR, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def taken_or_refused(call: Callable[[], Any], names: str = "") -> Any:
    """What `call` returns, or None where it raises a UserError of one sentence that names the file and a remedy."""
    try:
        return call()
    except UserError as refusal:
        said = str(refusal)
        assert "\n" not in said and (": " in said or "`" in said) and names in said, said
        return None
