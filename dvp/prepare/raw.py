"""Reading raw files: big JSON member by member, and images that are checked but never re-encoded."""

import io
import json
import re
import warnings
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from dvp.errors import UserError

CHUNK = 2**20  # characters read at a time
LARGEST_MEMBER = 2**24  # characters; a question or an annotation has a few thousand
SPACE = re.compile(r"\s*")
DECODER = json.JSONDecoder()


def read_object(path: Path, stream: str | None = None) -> Iterator[tuple[str, Any]]:
    """The (key, value) pairs of the JSON object in `path`, one at a time; the array under `stream` a pair per element.

    Never more than one value is in memory: GQA's training questions are over a gigabyte. Raises UserError when the file
    is missing or no such JSON.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: download it and unpack it there, see DATA.md.")
    with open(path, encoding="utf-8") as file:
        window = _Window(path, file)
        for _ in window.items("{", "}"):
            key = window.key()
            if key == stream:
                for _ in window.items("[", "]"):
                    yield key, window.value()
            else:
                yield key, window.value()


class _Window:
    """A window that moves over a JSON text."""

    def __init__(self, path: Path, file: TextIO):
        self.path, self.file = path, file
        self.text, self.at, self.ended = "", 0, False

    def items(self, opening: str, closing: str) -> Iterator[None]:
        """Stops before each item of an object or an array; the caller reads it."""
        self._expect(opening)
        if self._next() == closing:
            self.at += 1
            return
        while True:
            yield
            if self._expect("," + closing) == closing:
                return

    def key(self) -> str:
        self._expect('"')
        self.at -= 1
        key = self.value()
        self._expect(":")
        return key

    def value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                end = len(self.text)
                if self.ended:
                    raise self._broken() from None
            else:
                # A number that touches the window's edge may go on behind it.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            if end - self.at > LARGEST_MEMBER:
                raise self._broken()
            self._fill()

    def _next(self) -> str:
        while True:
            self.at = SPACE.match(self.text, self.at).end()
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                raise self._broken()
            self._fill()

    def _expect(self, marks: str) -> str:
        if self._next() not in marks:
            raise self._broken()
        self.at += 1
        return self.text[self.at - 1]

    def _fill(self) -> None:
        try:
            more = self.file.read(CHUNK)
        except UnicodeDecodeError as error:
            raise self._broken() from error
        self.text, self.at, self.ended = self.text[self.at :] + more, 0, not more

    def _broken(self) -> UserError:
        return UserError(f"{self.path} is truncated or not the JSON of this data set: download it again, see DATA.md.")


def field(entry: Any, name: str, kind: type, where: str) -> Any:
    """`entry[name]`, or UserError when the entry does not have it as this type."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        raise UserError(f"{where} has no {name} ({kind.__name__}): it is damaged or another data set's, see DATA.md.")
    return value


def check_new(question_id: int | str, seen: Container, path: Path) -> None:
    """Nothing, or UserError when the id was seen before."""
    if question_id in seen:
        raise UserError(f"{path} has the question id {question_id} twice: download it again, see DATA.md.")


def read_image(path: Path) -> bytes:
    """The bytes of an image file, as they are; UserError when they do not decode."""
    data = path.read_bytes()
    check_image(data, str(path))
    return data


def check_image(data: bytes, where: str) -> None:
    """Nothing, or UserError when the image is truncated, undecodable, or too large to be a photograph.

    A header check would miss truncation, so the whole image is decoded; a JPEG at an eighth of its size, which spares
    most of the inverse transform and the colour conversion.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.draft(None, (1, 1))
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = f"over {Image.MAX_IMAGE_PIXELS:,} pixels large"
        raise UserError(f"The image {where} is truncated, no image, or {limit}: replace it.") from error
