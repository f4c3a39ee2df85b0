"""Questions of a JSONL file, answered line by line into another, where an interrupted run goes on."""

import glob
import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, TextIO

from tqdm import tqdm

from dvp.answering.model import Answering, Prepared
from dvp.checkpoints import digest
from dvp.errors import UserError
from dvp.files import locked, remove, write_json, writing_to

FIELDS = {"image": str, "question": str, "choices": list, "hint": str, "caption": str}
KEPT = (*FIELDS, "question_id")  # what of a question stands beside its answer
SHOWN = 5  # bad lines that the last sentence names


def answer_file(answering: Answering, source: Path, to: Path | None, *, top: int, batch_size: int) -> None:
    """Answer every line of `source` that `to` does not answer yet, or, without `to`, all of them, printed.

    Each answer is written as soon as it is known. An interrupted run goes on with the batch that it was at, so that the
    numbers are those of a run that never was. A bad line is reported with its number, and the others are answered.
    Raises UserError at the end where there were bad lines, and before anything where `to` holds other answers, or where
    another process writes there.
    """
    with _alone(to):
        _answer_file(answering, source, to, top=top, batch_size=batch_size)


def _answer_file(answering: Answering, source: Path, to: Path | None, *, top: int, batch_size: int) -> None:
    about = {"format": 1, "checkpoint": digest(answering.config["load_path"])}
    about |= {key: answering.config[key] for key in ("answer_by", "max_new_tokens")}
    lines = list(_lines(source))
    done = _answered(to, about) if to else {}
    for number, line in lines:
        if number in done:
            _refuse_another(to, number, line, done[number])
    if done and done.keys() < {number for number, _ in lines}:
        done = _whole_batches(to, done, batch_size)
    bad: list[int] = []
    with _opened(to) as out, tqdm(total=len(lines), unit=" questions", file=sys.stderr, disable=None) as bar:
        waiting: list[tuple[int, dict[str, Any], Prepared]] = []
        for number, line in lines:
            if number in done:
                bar.update()
                continue
            try:
                asked = _read(line)
                waiting.append((number, asked, _prepare(answering, asked, source.parent)))
            except Skipped as error:
                bar.write(f"{source}, line {number}: {error}", file=sys.stderr)
                bar.update()
                bad.append(number)
            if len(waiting) == batch_size:
                _answer(answering, waiting, top, out, bar)
        _answer(answering, waiting, top, out, bar)
    if to:
        print(f"{len(lines) - len(bad)} of {len(lines)} questions are answered, {len(bad)} refused: {to}")
    if bad:
        named = ", ".join(map(str, bad[:SHOWN])) + (", ..." if len(bad) > SHOWN else "")
        raise UserError(
            f"{len(bad)} of {len(lines)} lines of {source} could not be answered ({named}): mend them, run this again."
        )


class Skipped(Exception):
    """What is wrong with a line."""


def _lines(source: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1."""
    with open(source, "rb") as file:
        yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())


def _read(line: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(line.decode("utf-8-sig").rstrip())
    except json.JSONDecodeError as error:
        raise Skipped(f"it is no JSON ({error.msg}, column {error.colno}).") from error
    except (ValueError, RecursionError) as error:  # of UTF-8
        raise Skipped(f"it is no JSON ({error}).") from error
    if not isinstance(asked, dict):
        raise Skipped('it is no object: write {"image": ..., "question": ...}.')
    for name, kind in FIELDS.items():
        if asked.get(name) is not None and not isinstance(asked[name], kind):
            raise Skipped(f'its "{name}" is {asked[name]!r}, which should be a {kind.__name__}.')
    return {name: asked[name] for name in KEPT if asked.get(name) is not None}


def _prepare(answering: Answering, asked: dict[str, Any], folder: Path) -> Prepared:
    options = {name: asked[name] for name in FIELDS if name in asked}
    image = options.pop("image", None)
    try:
        return answering.prepare(folder / Path(image).expanduser() if image else None, **{"question": ""} | options)
    except UserError as error:
        raise Skipped(str(error)) from error


def _answer(
    answering: Answering, waiting: list[tuple[int, dict[str, Any], Prepared]], top: int, out: TextIO, bar: tqdm
) -> None:
    if not waiting:
        return
    answers = answering([prepared for _, _, prepared in waiting], top=top)
    rows = (
        {"line": number} | asked | answer.as_dict() for (number, asked, _), answer in zip(waiting, answers, strict=True)
    )
    try:
        with tqdm.external_write_mode():
            out.write("".join(json.dumps(row) + "\n" for row in rows))
            out.flush()
    except OSError as error:
        raise UserError(
            f"The answers cannot be written ({error.strerror}): free the place and run this again."
        ) from error
    bar.update(len(waiting))
    waiting.clear()


@contextmanager
def _alone(to: Path | None) -> Iterator[None]:
    """Keep others out of a file of answers; what killed ones left of making its note is removed."""
    if to is None:
        yield
        return
    busy = UserError(f"to={to} is being written by another process: wait until it has ended, or give another place.")
    with ExitStack() as held:
        with writing_to(to):
            held.enter_context(locked(to.with_name(f".{to.name}.lock"), busy))
            for left in to.parent.glob(f".{glob.escape(to.with_suffix('.about.json').name)}.*.tmp"):
                remove(left)
        yield


def _opened(to: Path | None) -> AbstractContextManager[TextIO]:
    return _open(to, "a", encoding="utf-8") if to else nullcontext(sys.stdout)


def _open(to: Path, mode: str, **options: str) -> IO:
    try:
        return open(to, mode, **options)
    except OSError as error:
        raise UserError(f"to={to} cannot be written ({error.strerror}): give another place.") from error


def _answered(to: Path, about: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The answers that `to` holds, by line; what of its last line an interruption left is cut off.

    Raises UserError where it holds what was answered by another checkpoint or otherwise, or something else.
    """
    note = to.with_suffix(".about.json")
    try:
        lines = to.read_bytes().splitlines(keepends=True) if to.exists() else []
        if not lines:
            write_json(note, about)
            return {}
        if json.loads(note.read_text(encoding="utf-8")) != about:
            raise UserError(
                f"to={to} holds answers of another checkpoint or other settings, says {note}: give another place."
            )
        if not lines[-1].endswith(b"\n"):
            with open(to, "r+b") as file:
                file.truncate(sum(map(len, lines[:-1])))
            lines.pop()
        rows = [json.loads(line) for line in lines]
        return {row["line"]: row for row in rows}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"to={to} is no place for answers, or holds other things than those of predict ({error}): give another."
        ) from error


def _whole_batches(to: Path, done: dict[int, dict[str, Any]], batch_size: int) -> dict[int, dict[str, Any]]:
    """The answers of whole batches; those of the last, of which a part is missing, are cut off of `to`.

    The last digits of a probability depend on what else is in a batch.
    """
    whole = len(done) - len(done) % batch_size
    with _open(to, "r+b") as file:
        file.truncate(sum(map(len, itertools.islice(file, whole))))
    return dict(itertools.islice(done.items(), whole))


def _refuse_another(to: Path, number: int, line: bytes, done: dict[str, Any]) -> None:
    try:
        asked = _read(line)
    except Skipped:
        asked = {}
    if any(done.get(name) != asked.get(name) for name in KEPT):
        raise UserError(
            f"to={to} answers another question in line {number} than is asked there now: give another place, or the "
            "file of questions that it was made of."
        )
