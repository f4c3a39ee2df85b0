"""What is asked and what is answered: pictures of any kind and questions, looked at before a model is."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from dvp.backbones.tokenizer import Tokenizer
from dvp.errors import UserError
from dvp.images import is_animated, open_image, read_file, require_small, take_image, upright

Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]
Picture = str | Path | bytes | Image.Image
MOST_CHARACTERS = 5000  # of a question or a hint; what of it is read is mostly far less, and said
UNKNOWN, SPACE = {"[UNK]", "<unk>"}, "\u2581"  # how vocabularies write what they lack, and what begins a word


class Candidate(NamedTuple):
    """An answer that might be given, and its probability, 0 to 1."""

    text: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """What a model answers.

    text: the likeliest answer, of ScienceQA the choice that is named, empty where the text names none. candidates: the
    likeliest answers, best first. letter and written: ScienceQA's, what the text names and the text. notes: what is to
    be known of picture and question. attention: where it was asked for, the weights (heads, N) of the image tokens.
    """

    text: str
    probability: float
    candidates: tuple[Candidate, ...]
    letter: str | None = None
    written: str | None = None
    notes: tuple[str, ...] = ()
    attention: Tensor | None = field(default=None, compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it, without the attention."""
        told = {
            "answer": self.text,
            "probability": self.probability,
            "candidates": [one._asdict() for one in self.candidates],
            "letter": self.letter,
            "written": self.written,
            "notes": list(self.notes),
        }
        return {key: value for key, value in told.items() if value not in (None, [])}


@dataclass(frozen=True)
class Asked:
    """A question about a picture, as it is looked at: RGB, turned as the checkpoint's pictures were."""

    question: str
    picture: Image.Image | None
    choices: tuple[str, ...] = ()
    hint: str = ""
    caption: str = ""
    notes: tuple[str, ...] = ()


def read_picture(image: Picture, turn: bool, where: str = "") -> tuple[Image.Image, tuple[str, ...]]:
    """The RGB image of a path, of bytes or of an image of PIL's, and what is to be known of it.

    turn: as its EXIF says that it is to be seen. Raises UserError, with the path or `where`, for what is no picture,
    does not decode, or is too large.
    """
    notes: list[str] = []
    if isinstance(image, Image.Image):
        picture = take_image(image, where or "that was given")
    else:
        data, where = (image, where or "that was given") if isinstance(image, bytes) else (read_file(image), str(image))
        require_small(len(data), where)
        picture = open_image(data, where)
        if is_animated(data, where):
            notes.append("the picture is animated: its first frame is looked at")
    if turn:
        picture = upright(picture)
    elif upright(picture) is not picture:
        notes.append("the picture lies on its side or mirrored, says its EXIF: it is looked at so, as in training")
    return picture, tuple(notes)


def read_text(text: Any, what: str, needed: bool = True) -> tuple[str, tuple[str, ...]]:
    """The text of a question or hint, and what is to be known of it. Raises UserError where it is empty or none."""
    if not isinstance(text, str) or needed and not text.strip():
        found = "is empty" if text in (None, "") or isinstance(text, str) else f"is {text!r}, no text"
        raise UserError(f"The {what} {found}: ask something, such as What is on the sofa?")
    text = text.encode("utf-8", "replace").decode()  # halves of characters, which JSON can hold, are no text
    if len(text) <= MOST_CHARACTERS:
        return text, ()
    return text[:MOST_CHARACTERS], (f"the {what} has {len(text):,} characters, of which {MOST_CHARACTERS:,} are taken",)


def all_unknown(tokenizer: Tokenizer, question: str) -> bool:
    """Whether the vocabulary lacks every word of a question, so that the language model reads nothing but gaps."""
    words = tokenizer.encode_all(re.findall(r"\w+", question))
    written = [{tokenizer.piece(number) for number in ids} - {SPACE} for ids in words]
    return bool(written) and all(pieces <= UNKNOWN for pieces in written)
