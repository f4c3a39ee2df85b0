"""The tables that a run reads, and what its splits share."""

from collections.abc import Iterator
from typing import Any

from dvp.data.checked import check_tables
from dvp.doctor.findings import FAULT, NOTE, OK
from dvp.kinds import KINDS
from dvp.tasks import TASKS


def look_at_tables(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows and faults of every table, of a test those of its split alone; then vocabulary and splits together."""
    task, published = TASKS[config["datasets"]], config["as_published"]
    tested = task.tested(config["test_split"]) if config["test_only"] else ()
    options = {"as_published": published, "tested": tested}
    *tables, together = check_tables(config["data_root"], task, KINDS[task.kind].columns(task), **options)
    for one in tables:
        yield from ((FAULT, sentence) for sentence in one.faults)
        if not one.faults:
            made = "as converted" if one.converted else "without a manifest, as of the published scripts"
            yield OK, f"{one.name}: {one.rows:,} rows, {made}"
    yield from ((FAULT, sentence) for sentence in together.faults)
    yield from ((NOTE, sentence) for sentence in together.notes)
    if not together.faults and not together.notes and not tested:
        shared = "picture is" if published else "picture and no question is"
        yield OK, f"no {shared} in training and evaluation"
