"""The columns of a table in one set of types, whoever wrote it, and what has to hold of its rows."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dvp.errors import UserError

PER_QUESTION = ("question_id", "answers", "answer_labels", "answer_scores")  # lists as long as that of the questions
ANSWERS = PER_QUESTION[1:]  # all empty in a split whose answers are secret
PER_ANSWER = ("answer_labels", "answer_scores")  # their inner lists are as long as those of the answers
RANGES = {"answer_labels": (0, 10**6), "answer_scores": (0, 1)}  # more labels than any vocabulary has
LISTS = (
    pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
    pa.types.is_large_list_view,
)  # fmt: skip


def plain(table: pa.Table, columns: Iterable[str]) -> pa.Table:
    """The table with 32-bit offsets, 64-bit numbers and no null lists in these columns; pictures stay as they are.

    Raises pa.ArrowException for what does not fit into these types, and for damaged buffers.
    """
    table.validate(full=True)
    for place, field in enumerate(table.schema):
        if field.name in columns and field.name != "image":
            column = table.column(place)
            if field.name in ("questions", *PER_QUESTION) and pa.types.is_null(field.type):
                column = column.cast(pa.list_(pa.null()))  # as the published scripts write what is empty
            if (wanted := _plain(column.type)) != column.type:
                column = column.cast(wanted)
            if pa.types.is_list(column.type) and column.null_count:
                column = pa.chunked_array([_empty_for_null(column)])
            table = table.set_column(place, field.name, column)
    return table


def check_rows(table: pa.Table, columns: Iterable[str], name: str) -> None:
    """Nothing, or UserError where a row of the `plain` table lacks a value or its lists do not fit each other."""
    for column in (column for column in columns if column != "image"):
        values = table[column]
        if values.null_count:
            raise _bad(name, _first(values.is_null()), f"no {column}")
        if pa.types.is_list(values.type) and not _is_nested(values.type):
            nulls = pc.list_flatten(values).is_null()
            if pc.any(nulls).as_py():
                raise _bad(name, _row(values, _first(nulls)), f"a null among its {column}")
    questions = _lengths(table["questions"]) if "questions" in columns else None
    for column in PER_QUESTION:
        if questions is not None and column in columns:
            counts = _lengths(table[column])
            if (column not in ANSWERS or counts.any()) and (other := np.flatnonzero(counts != questions)).size:
                row = other[0]
                raise _bad(name, row, f"{questions[row]} questions and {counts[row]} entries of {column}")
    if "answers" in columns and _is_nested(table["answers"].type):
        _check_answers(table, columns, name)


def _check_answers(table: pa.Table, columns: Iterable[str], name: str) -> None:
    given = pc.list_flatten(table["answers"])
    for column in ("answers", *PER_ANSWER):
        if column in columns:
            found = pc.list_flatten(table[column])
            if len(found) != len(given):
                raise UserError(f"{name} has answers but not as many {column}: convert the raw data again.")
            if (other := np.flatnonzero(_lengths(found) != _lengths(given))).size:
                raise _bad(name, _row(table[column], other[0]), f"not as many {column} as answers")
            values = pc.list_flatten(found) if len(found) else found
            if values.null_count:
                raise UserError(f"{name} has a null among its {column}: convert the raw data again.")
            if column in RANGES and len(values):
                low, high = RANGES[column]
                if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
                    raise UserError(f"{name} has {values.type} among its {column}: convert the raw data again.")
                numbers = np.asarray(values)
                if (bad := np.flatnonzero(~((numbers >= low) & (numbers <= high)))).size:  # not a number, too
                    row = _row(table[column], _row(found, bad[0]))
                    what = f"{numbers[bad[0]]} among its {column}, which go from {low} to {high}"
                    raise _bad(name, row, what)


def _plain(type_: pa.DataType) -> pa.DataType:
    kinds = pa.types
    if any(is_kind(type_) for is_kind in LISTS):
        return pa.list_(_plain(type_.value_type))
    if kinds.is_dictionary(type_):
        return _plain(type_.value_type)
    if kinds.is_large_string(type_) or kinds.is_string_view(type_):
        return pa.string()
    return pa.int64() if kinds.is_integer(type_) else pa.float64() if kinds.is_floating(type_) else type_


def _empty_for_null(column: pa.ChunkedArray) -> pa.ListArray:
    ends = np.concatenate([[0], np.cumsum(_lengths(column))])
    values = pc.list_flatten(column)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), _one(values))


def _one(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.array([], column.type)


def _is_nested(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) and pa.types.is_list(type_.value_type)


def _lengths(lists: pa.ChunkedArray) -> np.ndarray:
    if not pa.types.is_list(lists.type):  # of null type, since nothing is in it
        return np.zeros(len(lists), int)
    return np.asarray(pc.list_value_length(lists).fill_null(0))


def _first(holds: pa.ChunkedArray) -> int:
    return int(np.flatnonzero(np.asarray(holds))[0])


def _row(lists: pa.ChunkedArray, place: int) -> int:
    """The row in which the entry at this place of the joined lists stands."""
    return int(np.searchsorted(np.cumsum(_lengths(lists)), place, side="right"))


def _bad(name: str, row: int, fault: str) -> UserError:
    return UserError(f"{name}, row {row}, has {fault}: convert the raw data again.")
