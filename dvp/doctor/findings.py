"""What a look at something finds, and many looks one after another, of which none ends the others."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from dvp.errors import UserError

OK, NOTE, FAULT = "ok", "note", "fault"
# A look: a config -> pairs of one of these and a sentence; what cannot be is a UserError of its, and the last it finds.
Look = Callable[[dict[str, Any]], Iterator[tuple[str, str]]]


class Finding(NamedTuple):
    """One line of what was found: ok, note or fault; of what; in words, of a fault with its remedy."""

    state: str
    what: str
    told: str


def findings(looks: Mapping[str, Look], config: dict[str, Any]) -> Iterator[Finding]:
    """What all looks find, by what they look at; a fault that several meet is told once."""
    told = set()
    for what, look in looks.items():
        try:
            for state, sentence in look(config):
                told.add(sentence)
                yield Finding(state, what, sentence)
        except (UserError, ImportError, OSError) as error:
            remedy = ": install the package again." if isinstance(error, ImportError) else ""
            sentence = f"{error}{remedy}"
            if sentence in told:
                yield Finding(NOTE, what, "not known before the faults above are mended")
            else:
                told.add(sentence)
                yield Finding(FAULT, what, sentence)
