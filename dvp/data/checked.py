"""Every table of a task looked at whole, byte by byte and picture by picture: what a run would only meet on its way."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from dvp.data.arrow import Table, check_answers, open_table, place_of, read_answers, table_path
from dvp.data.leaks import refuse_shared_questions, shared_pictures
from dvp.errors import UserError
from dvp.images import traits
from dvp.manifest import Manifest, image_hash, read_manifest
from dvp.tasks import Task, require_table

SHOWN = 5  # bad pictures of a table that are told one by one


class Checked(NamedTuple):
    """What was found of a table, or, under what all their names begin with, of the tables together."""

    name: str
    rows: int
    converted: bool  # whether a manifest tells of it; those of the published scripts have none
    faults: list[str]  # sentences; where there is none, it can be used
    notes: list[str]  # what is worth knowing


def check_tables(
    data_root: str,
    task: Task,
    columns: Iterable[str],
    *,
    pictures: bool = True,
    as_published: bool = False,
    tested: tuple[str, ...] = (),
) -> list[Checked]:
    """What is found of every table of a task in a folder, and last of all together: vocabulary and splits.

    columns: that the task's reader asks of them. pictures: their bytes are looked at, too, which takes as long as the
    disk does. as_published: splits may share questions. tested: only these splits are looked at, each by itself, as a
    test does. What is wrong with a table is told, not raised.
    """
    splits = dict.fromkeys(tested or (*task.train, *task.validate, *task.test, *task.test_splits))
    there = [split for split in splits if table_path(data_root, task.files, split).is_file()]
    needed = tested or (*task.train, *task.validate)
    lacking = [split for split in needed if split not in there and split != task.may_lack]
    faults = []
    for path in (table_path(data_root, task.files, split) for split in lacking):
        faults += _faults(lambda path=path: require_table(path, task.files))[1]
    try:
        manifest = read_manifest(data_root, task.files)
    except UserError as error:
        return [Checked(task.files, 0, True, [str(error), *faults], [])]
    found, opened = [], {}
    for split in there:
        path = table_path(data_root, task.files, split)
        table, wrong = _faults(lambda split=split: open_table(data_root, task.files, split, tuple(columns)))
        if table is not None:
            opened[split] = table
            wrong += list(_within(table, manifest, pictures))
        found.append(Checked(path.name, len(table or ()), bool(manifest and path.name in manifest.files), wrong, []))
    wrong, notes = ([], []) if tested else _between(data_root, task, opened, as_published)
    together = list(dict.fromkeys(faults + wrong))  # the vocabulary may be a missing table's
    return [*found, Checked(task.files, sum(one.rows for one in found), bool(manifest), together, notes)]


def _between(data_root: str, task: Task, opened: dict[str, Table], as_published: bool) -> tuple[list[str], list[str]]:
    """What is wrong, and worth knowing, between tables that open."""
    faults = []
    if not task.answers:
        faults += _faults(lambda: check_answers(opened.values(), read_answers(data_root, task)))[1]
    if not as_published:
        faults += _faults(lambda: refuse_shared_questions(task, opened))[1]
    shared, wrong = _faults(lambda: shared_pictures(data_root, task, opened))
    return faults + wrong, [shared] if shared else []


def _within(table: Table, manifest: Manifest | None, pictures: bool) -> Iterator[str]:
    """What is wrong inside a table that opens."""
    if not pictures:
        return
    made, wrong = _faults(lambda: manifest.pictures()[table.path.name]) if manifest else (None, [])
    bad = wrong or list(_bad_pictures(table, made))
    yield from bad[:SHOWN]
    if len(bad) > SHOWN:
        yield f"{len(bad) - SHOWN} more pictures of {table.path} are bad: convert the raw data again."


def _bad_pictures(table: Table, made: list[str] | None) -> Iterator[str]:
    """A sentence for each picture that is not the converted one or, in a table without a manifest, does not decode."""
    for row in range(len(table)):
        data = table["image"][row].as_py() or b""
        if made is not None:
            if (image_hash(data) if data else "") != made[row]:
                yield f"The picture {place_of(table, row)} is not the one that was converted: put back a sound copy."
        elif data or "questions" in table.column_names:  # a problem of ScienceQA's may have none
            yield from _faults(lambda data=data, row=row: traits(data, place_of(table, row)))[1]


def _faults(look: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What `look` returns, and the sentence that it raises instead."""
    try:
        return look(), []
    except UserError as error:
        return None, [str(error)]
