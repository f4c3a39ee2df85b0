"""Rows of JSONL and Parquet files, one at a time, each with the place where it stands."""

import base64
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dvp.errors import UserError

AT_ONCE = 64  # rows of a Parquet file in memory: each may bring a picture


class Row(NamedTuple):
    """A row of a file: its line, its content, and what is wrong with it where it is no row at all."""

    line: int
    content: dict[str, Any]
    fault: str = ""


def read_rows(path: Path, columns: Iterable[str] | None = None) -> Iterator[Row]:
    """The rows of a .jsonl or .parquet file, lines counted from 1; of a Parquet file only those of these columns.

    A line that is no JSON object is a row with a fault. Raises UserError for a file that is no Parquet.
    """
    return _parquet(path, columns) if path.suffix == ".parquet" else _jsonl(path)


def column_names(path: Path) -> set[str]:
    """The names of a Parquet file's columns; raises UserError when it is none."""
    with _refusing(path), pq.ParquetFile(path) as file:
        return set(file.schema_arrow.names)


def picture_of(value: Any) -> str | bytes:
    """The path or the bytes that an `image` field names: a path, bytes, or {"bytes": ..., "path": ...} of the two.

    In JSON, bytes are base64. Raises ValueError that says what the field is instead.
    """
    if isinstance(value, dict):
        data = value.get("bytes")
        if isinstance(data, str):
            try:
                data = base64.b64decode(data, validate=True)
            except ValueError:  # binascii.Error, and of characters beyond ASCII
                raise ValueError("has bytes that are not base64") from None
        value = data if data is not None else value.get("path")
    if isinstance(value, str | bytes):
        if value:
            return value
        raise ValueError("is empty")
    raise ValueError('is missing: give a path or {"bytes": <base64>}')


def _jsonl(path: Path) -> Iterator[Row]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                content = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as error:
                yield Row(number, {}, f"no JSON ({str(error).splitlines()[0]})")
                continue
            if isinstance(content, dict):
                yield Row(number, content)
            else:
                yield Row(number, {}, "no JSON object")


def _parquet(path: Path, columns: Iterable[str] | None) -> Iterator[Row]:
    with _refusing(path), pq.ParquetFile(path) as file:
        wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        number = 0
        for batch in file.iter_batches(AT_ONCE, columns=wanted):
            for content in batch.to_pylist():
                number += 1
                yield Row(number, content)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Raises UserError, with the file, for what pyarrow says of one that it cannot read."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path} is truncated or no Parquet file ({reason}): get it again.") from error
