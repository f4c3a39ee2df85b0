"""Reading what is to be scored: official JSON files, with a clear word on what is wrong with them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dvp.errors import UserError

SHOWN = 5  # ids or rows that a message names


def read_json(path: str, setting: str) -> Any:
    """The content of a JSON file; UserError, with the setting that named the file, if it cannot be read."""
    if not path:
        raise UserError(f"{setting}= is empty: name the JSON file.")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{setting}={path} cannot be read ({error.strerror}): give a file that is there.") from error
    except (ValueError, RecursionError) as error:  # of JSON or of UTF-8
        raise UserError(f"{setting}={path} is not whole JSON ({error}): it may be truncated, copy it again.") from error


def read_rows(path: str, setting: str, fields: Mapping[str, type], inside: str = "") -> list[dict[str, Any]]:
    """The rows of a JSON list, or of the list `inside` a JSON object; each row has `fields` of exactly these types."""
    content = read_json(path, setting)
    if inside:
        content = content.get(inside) if isinstance(content, dict) else None
    if not isinstance(content, list):
        wanted = f'an object with the list "{inside}"' if inside else "a list"
        raise UserError(f"{setting}={path} is not {wanted}: give the official file.")
    check_rows(enumerate(content), fields, f"{setting}={path}")
    return content


def check_rows(rows: Iterable[tuple[Any, Any]], fields: Mapping[str, type], source: str) -> None:
    """UserError that names the first (key, row) whose row is not an object with `fields` of exactly these types."""
    for key, row in rows:
        for name, kind in fields.items():
            if not isinstance(row, dict) or type(row.get(name)) is not kind:
                raise UserError(
                    f'{source}: row {key} has no "{name}" of type {kind.__name__} ({str(row)[:80]}): '
                    "give the official file."
                )


def check_ids(given: Iterable[Any], expected: Iterable[Any], names: tuple[str, str], more: bool = False) -> None:
    """UserError unless `given` holds each of `expected` exactly once and, without `more`, nothing else; says which."""
    counts, expected = Counter(given), dict.fromkeys(expected)
    faults = {
        "twice": [one for one, count in counts.items() if count > 1],
        "missing": [one for one in expected if one not in counts],
        "unknown": [one for one in counts if one not in expected and not more],
    }
    found = [
        f"{len(ids)} {fault} ({', '.join(map(str, ids[:SHOWN]))}{', ...' if len(ids) > SHOWN else ''})"
        for fault, ids in faults.items()
        if ids
    ]
    if expected and not counts.keys() & expected.keys():
        found.append("none in common: is one of them of another data set?")
    if found:
        raise UserError(
            f"The question ids of {names[0]} are not those of {names[1]}: {'; '.join(found)}. Give files of the same "
            "questions."
        )
