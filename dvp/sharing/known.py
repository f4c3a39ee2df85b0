"""What is known of a checkpoint beside its weights: scores on val and test, how K was found, which data it saw."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from dvp.checkpoints import newest, read_description, read_scores
from dvp.errors import UserError
from dvp.files import read_json
from dvp.manifest import read_manifest
from dvp.search import agreeing_search, search_beside, tables_of
from dvp.tasks import TASKS


class Known(NamedTuple):
    """What a model card tells. config: all settings of the run, of an old checkpoint none.

    scores: in percent by metric. search: the record of the one that found K; told: whether it told this run. rows: of
    the tables by name, where they are known. parameters: how many are exported.
    """

    description: dict[str, Any]
    config: dict[str, Any]
    scores: dict[str, float]
    search: dict[str, Any] | None
    told: bool
    rows: dict[str, int]
    parameters: int = 0


def look_up(checkpoint: Path) -> Known:
    """What is known of a checkpoint folder, of a search's at its K.

    Raises UserError where it is damaged, and for one of a search that found no K or saw nothing.
    """
    description = read_description(str(checkpoint))
    config, task = description.get("config") or {}, TASKS[description["task"]]
    search, told = _search(checkpoint, description, config)
    manifest = read_manifest(config.get("data_root") or "", task.files) if config else None
    files = manifest.files if manifest else {}
    return Known(
        description,
        config,
        read_scores(str(checkpoint)) | _tested(checkpoint),
        search,
        told,
        {name: about["rows"] for name, about in files.items() if "rows" in about},
    )


def _search(
    checkpoint: Path, description: dict[str, Any], config: dict[str, Any]
) -> tuple[dict[str, Any] | None, bool]:
    """The record of the search that K is of, and whether it told this run, or only agrees with it."""
    if description["search_stage"]:
        if description.get("blind"):
            raise UserError(
                f"{checkpoint} is of a blind search (image_tokens=zero), which tells no K: give a training at a K."
            )
        record = search_beside(checkpoint).record
        if not record["found"]:
            raise UserError(
                f"{checkpoint} is of a search that found no K ({record['verdict']}): search longer, or "
                "export a training at a K."
            )
        return record, True
    started = Path(config.get("load_path") or "nothing")
    if (started.parent.parent / "search.json").is_file():
        found, told = search_beside(started), True
    else:
        log_dir = Path(config.get("log_dir") or "nothing")
        tables = tables_of(config.get("data_root") or "nothing", TASKS[description["task"]].files)
        found, told = agreeing_search(log_dir, config, tables)[0] if log_dir.is_dir() else None, False
    agrees = found and found.insert_layer == description.get("insert_layer")
    return (found.record, told) if agrees else (None, False)


def _tested(checkpoint: Path) -> dict[str, float]:
    """The scores that tests of these very weights left beside the run, the newest last."""
    scores: dict[str, float] = {}
    tests = checkpoint.resolve().parents[2].glob("test_*/claim.json") if len(checkpoint.resolve().parents) > 2 else ()
    for claim in sorted(tests, key=lambda path: path.stat().st_mtime):
        table = claim.with_name("metrics.csv")
        if _names(read_json(claim)["config"]["load_path"], checkpoint) and table.is_file():
            scores |= newest(table.read_text(encoding="utf-8"))
    return scores


def _names(place: str, checkpoint: Path) -> bool:
    return bool(place) and os.path.exists(place) and os.path.samefile(place, checkpoint)
