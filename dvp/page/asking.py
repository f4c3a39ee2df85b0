"""What the page shows: a question about an uploaded picture becomes bars, panels and words."""

from dataclasses import dataclass
from pathlib import Path

from dvp.answering import Answering
from dvp.answering.heatmap import Panel, draw_panels
from dvp.errors import UserError

KEPT = 3600  # seconds that an uploaded picture is kept, and after which it is looked whether it is to go


@dataclass(frozen=True)
class Shown:
    """What stands on the page after a question.

    bars: the likeliest answers and their probabilities. panels: the picture under the attention, with titles, the mean
    first. written, names: what ScienceQA's model wrote, and which choice that names. note: what is to be known, or what
    was wrong.
    """

    bars: dict[str, float] | None = None
    panels: tuple[Panel, ...] = ()
    written: str = ""
    names: str = ""
    note: str = ""


def ask(answering: Answering, upload: str | None, question: str, choices: str, hint: str, layer: int) -> Shown:
    """What is shown of the answer, of a search's model at a layer; of a question that is refused, the sentence why.

    upload: the path of the picture; it is named by the file's name alone. choices: one a line.
    """
    given = tuple(line.strip() for line in choices.splitlines() if line.strip())
    try:
        picture = _read(Path(upload)) if upload else None
        name = Path(upload).name if upload else ""
        prepared = answering.prepare(picture, question, given, hint, where=name)
        (answer,) = answering([prepared], insert_layer=layer if answering.searched else None, attention=True)
    except UserError as error:
        return Shown(note=str(error))
    panels = ()
    if answer.attention is not None:
        looked_at = prepared.asked.picture
        panels = tuple(draw_panels(looked_at, answer.attention, answering.seen(looked_at), answering.prefix_tokens)[1:])
    notes = " ".join(f"{note[0].upper()}{note[1:]}." for note in answer.notes)
    names = f"({answer.letter}) {answer.text}" if answer.letter else "no choice"
    return Shown(dict(answer.candidates), panels, answer.written or "", names, notes)


def _read(upload: Path) -> bytes:
    try:
        return upload.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{upload.name} is no longer here, since pictures are kept for {KEPT // 60} minutes: choose it again."
        ) from error
