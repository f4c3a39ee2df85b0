"""Pictures and questions that training and evaluation share: what a model has seen is no test of it.

Pictures are told and let through: ScienceQA's own splits share maps and drawings. A question in two splits is a mistake
of whoever made the tables.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dvp.data.arrow import Table, flatten, table_path
from dvp.data.pictures import noted_hashes
from dvp.errors import UserError
from dvp.manifest import read_manifest
from dvp.tasks import Task

IDS = ("image_id", "identifier")  # of pictures


def shared_pictures(data_root: str, task: Task, tables: dict[str, Table]) -> str:
    """A line that tells how many pictures of each evaluation table are trained on, too; empty where none are.

    tables: the open ones, by split. Converted tables are compared by the hashes of their pictures, also those that are
    not open; others by hashes where these are noted, else by the ids of their pictures.
    """
    manifest = read_manifest(data_root, task.files)
    pictures = _listed(task, tables, manifest.pictures()) if manifest else _opened(tables, _notes(data_root))
    trained = set().union(*(pictures.get(split, ()) for split in task.train))
    evaluated = {split: found for split, found in pictures.items() if split not in task.train}
    shared = {split: len(found & trained) for split, found in evaluated.items() if found & trained}
    if not shared:
        return ""
    told = [f"{count} of the {len(pictures[split])} of {task.files}_{split}" for split, count in shared.items()]
    return f"Pictures that are trained on, too: {', '.join(told)}; what is scored there is not all unseen."


def refuse_shared_questions(task: Task, tables: dict[str, Table]) -> None:
    """Nothing, or UserError where an evaluation table has the id of a question that is trained on."""
    trained = {split: table for split, table in tables.items() if split in task.train}
    for split, table in tables.items():
        for learnt, other in trained.items() if split not in task.train else ():
            shared = _shared_ids(table, other)
            if len(shared):
                raise UserError(
                    f"{len(shared)} questions of {table.path} are in {other.path}, too, such as {shared[0]}: "
                    f"make {split} and {learnt} of separate questions, or set as_published=True to let them be."
                )


def _listed(task: Task, tables: dict[str, Table], hashes: dict[str, list[str]]) -> dict[str, set[str]]:
    """The pictures of all converted tables, of an open one those of its rows."""
    splits = (*task.train, *task.validate, *task.test, *task.test_splits)
    whole = {split: hashes.get(table_path("", task.files, split).name, []) for split in splits}
    parts = {split: table for split, table in tables.items() if table.chosen is not None}
    rows = {split: [hashes[table.path.name][row] for row in table.chosen.tolist()] for split, table in parts.items()}
    return {split: set(found) - {""} for split, found in (whole | rows).items()}


def _opened(tables: dict[str, Table], notes: Path) -> dict[str, set]:
    hashes = {split: noted_hashes(table, notes) for split, table in tables.items()}
    if all(found is not None for found in hashes.values()):
        return {split: set(found) for split, found in hashes.items()}
    ids = {split: next((name for name in IDS if name in table.column_names), None) for split, table in tables.items()}
    return {split: set(tables[split][name].to_pylist()) for split, name in ids.items() if name}


def _notes(data_root: str) -> Path:
    return Path(data_root) / "image_tokens" / "pictures"  # where a cache of image tokens notes what it has read


def _shared_ids(table: Table, other: Table) -> pa.ChunkedArray:
    """The question ids of a table that another has, too; none where they do not have ids of one type."""
    if not all("question_id" in one.column_names for one in (table, other)):
        return pa.chunked_array([], pa.int64())
    own, others = (flatten(one["question_id"]) for one in (table, other))
    same = own.type == others.type and not pa.types.is_null(own.type)
    return own.filter(pc.is_in(own, value_set=others.combine_chunks())) if same else own.slice(0, 0)
