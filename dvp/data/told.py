"""A question as people read it, for what is shown of a run."""

from typing import NamedTuple

from dvp.data.arrow import Table


class Told(NamedTuple):
    """A question with its right answers, the likeliest first, its group, and the table and row of its picture."""

    question: str
    right: tuple[str, ...]
    group: str
    picture: tuple[Table, int] | None
