"""Reading raw files: big JSON member by member, and images that are checked but never re-encoded."""

import json
import os
import re
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, TextIO

from dvp.errors import UserError
from dvp.images import traits

CHUNK = 2**20  # characters read at a time
LARGEST_MEMBER = 2**24  # characters; a question or an annotation has a few thousand
LONGEST_NAME = 240  # bytes of a file's name without its ending
HALF = re.compile("[\ud800-\udfff]")  # half of a character outside of the first 65,536
SPACE = re.compile(r"\s*")
DECODER = json.JSONDecoder()


def read_object(path: Path, stream: str | None = None) -> Iterator[tuple[str, Any]]:
    """The (key, value) pairs of the JSON object in `path`, one at a time; the array under `stream` a pair per element.

    Never more than one value is in memory: GQA's training questions are over a gigabyte. Raises UserError when the file
    is missing or no such JSON.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: download it and unpack it there, see DATA.md.")
    with open(path, encoding="utf-8-sig") as file:
        window = _Window(path, file)
        for _ in window.items("{", "}"):
            key = window.key()
            if key == stream:
                for _ in window.items("[", "]"):
                    yield key, window.value()
            else:
                yield key, window.value()
        window.end()


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
            except (ValueError, RecursionError):  # of JSON, a number of thousands of digits, or thousands of brackets
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

    def end(self) -> None:
        """Nothing, or UserError where something follows: of two files in one, the second would be lost."""
        while not self.ended or self.at < len(self.text):
            if SPACE.fullmatch(self.text, self.at) is None:
                raise self._broken()
            self.at = len(self.text)
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
    """`entry[name]`, or UserError when the entry does not have it as this type or a table cannot hold it."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{where} has no {name} ({kind.__name__}): it is damaged or another data set's, see DATA.md.")
    return storable(value, name, where)


def storable(value: Any, name: str, where: str) -> Any:
    """The value, or UserError for what a table cannot hold: half a character, a number of over 64 bits."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"{where}: the {name} {str(value)[:40]} does not fit into 64 bits, give it a smaller number.")
    if isinstance(value, str) and HALF.search(value):
        raise UserError(f"{where}: the {name} {value[:40]!r} holds half a character (a lone surrogate), mend the text.")
    return value


def check_new(question_id: int | str, seen: Container, path: Path) -> None:
    """Nothing, or UserError when the id was seen before."""
    if question_id in seen:
        raise UserError(f"{path} has the question id {question_id} twice: download it again, see DATA.md.")


def file_name(name: str, what: str, where: str) -> str:
    """The name, which goes into a path; UserError where it would lead out of the folder that it is meant for."""
    if name in ("", ".", "..") or any(mark in name for mark in "/\\\0") or len(name.encode()) > LONGEST_NAME:
        raise UserError(f"{where}: the {what} {name[:40]!r} is not a plain name, but it names a file: mend the file.")
    return name


def inside(folder: Path, *names: str) -> Path:
    """The path of a picture in the folder of raw pictures; UserError where a link leads out of that folder.

    That folder may be a link itself: the user has made it, the names come from the data.
    """
    path, linked = folder, False
    for name in names:
        path = path / name
        linked |= path.is_symlink()
    if linked and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UserError(
            f"{path} is a link to {os.path.realpath(path)}, out of {folder}: put the picture itself there, or link the "
            "whole folder."
        )
    return path


def read_image(path: Path, seen: Counter) -> bytes:
    """The bytes of an image file, as they are, what it shows counted in `seen`; UserError when they do not decode."""
    data = path.read_bytes()
    seen.update(traits(data, str(path)))
    return data
