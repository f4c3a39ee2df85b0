"""Set runs beside each other: what each came to, over the updates, and in which settings they differ."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dvp.commands.idle import idle
from dvp.config import ex, one_task
from dvp.errors import UserError
from dvp.files import read_description, read_json
from dvp.tasks import TASKS

# Settings of a run's folder that change nothing that is computed.
PLACES = ("log_dir", "exp_name", "resume_from", "logger", "report", "save_every", "num_workers")
AGAIN = "leave this run out"


class Compared(NamedTuple):
    """A run: its folder, its settings, K, the metric that picks its checkpoint, and updates and values of that."""

    folder: Path
    config: dict[str, Any]
    insert_layer: int | str
    monitor: str
    updates: list[float]
    values: list[float]


@ex.command(unobserved=True)
def compare(runs, log_dir):
    """Set runs beside each other, as a table and a plot: on the screen, and in compare.html under log_dir.

    runs: their folders, or folders of an experiment with all its runs, as in runs=result/a_seed0,result/b_seed0.
    """
    listed = runs.split(",") if isinstance(runs, str) else runs if isinstance(runs, list | tuple) else [runs]
    folders = dict.fromkeys(
        folder for place in listed if str(place).strip() for folder in _runs_in(Path(str(place).strip()))
    )
    if len(folders) < 2:
        raise UserError(
            "compare needs two runs at least: give their folders, as in runs=result/a_seed0,result/b_seed0."
        )
    found = [read_run(folder) for folder in folders]

    from dvp.report.comparison import comparison_lines, report_comparison

    shown, settings = _rows(found), _settings(found)
    curves = [(run.updates, run.values) for run in found]
    metrics = " and ".join(dict.fromkeys(run.monitor for run in found))
    print(comparison_lines(metrics, shown, settings, curves))
    report_comparison(Path(str(log_dir)), metrics, shown, settings, curves)
    print(f"\nOn a page: {Path(str(log_dir)) / 'compare.html'}")


def _runs_in(place: Path) -> Iterator[Path]:
    """The folder itself where it is a run's, else the runs in it; raises UserError where there is none."""
    if (place / "metrics.csv").is_file():
        yield Path(os.path.abspath(place))
        return
    found = [path.parent for path in place.glob("version_*/metrics.csv")]
    if not found:
        raise UserError(f"{place} is no run's folder, nor has it runs: give one with a metrics.csv, as version_0 has.")
    for folder in sorted(found, key=lambda folder: int(folder.name.rpartition("_")[2])):
        yield Path(os.path.abspath(folder))


def read_run(folder: Path) -> Compared:
    """What a run's folder tells; raises UserError where its claim or its checkpoint, of older ones, does not."""
    from dvp.report.training import read_metrics

    claim, last = folder / "claim.json", folder / "checkpoints" / "last.ckpt"
    description = read_description(str(last)) if last.exists() else {}
    config = read_json(claim, remedy=AGAIN).get("config") if claim.is_file() else description.get("config")
    if not config:
        raise UserError(f"{folder} does not tell the settings of its run: leave it out.")
    layer = config.get("insert_layer", "")
    if config.get("search_stage") or layer == "auto" or config.get("start_from"):
        search = folder / "search.json"
        layer = read_json(search, remedy=AGAIN)["insert_layer"] if search.is_file() else description.get("insert_layer")
    name = one_task(config["datasets"])
    task = TASKS[name]
    pick = task.published_pick if config.get("as_published") else (task.pick,)
    monitor = f"{name}/{'+'.join(pick)}/{task.metric}"
    updates, values = read_metrics(folder / "metrics.csv").get(monitor, ([], []))
    return Compared(folder, config, "?" if layer is None else layer, monitor, updates, values)


def _rows(runs: Sequence[Compared]) -> list[list[str]]:
    """What each run came to, below a head."""
    rows = [["run", "K", "best", "after", "last", "updates"]]
    shared = Path(os.path.commonpath([run.folder for run in runs]))
    for run in runs:
        what = [
            str(run.folder.relative_to(shared)),
            str(run.insert_layer) + (" found" if run.config["search_stage"] else ""),
        ]
        if not run.values:
            rows.append([*what, "-", "-", "-", "-"])
            continue
        best = max(range(len(run.values)), key=lambda place: run.values[place])
        numbers = [
            f"{run.values[best]:.2f}",
            f"{run.updates[best]:.0f}",
            f"{run.values[-1]:.2f}",
            f"{run.updates[-1]:.0f}",
        ]
        rows.append([*what, *numbers])
    return rows


def _settings(runs: Sequence[Compared]) -> list[list[str]]:
    """A row for each setting in which the runs differ, and which does something in one of them, with all values."""
    keys = sorted({key for run in runs for key in run.config} - {*PLACES})
    without = [dict(idle(keys, ex.settings | run.config)) for run in runs]
    rows = [
        [key, *(str(run.config.get(key, "")) for run in runs)]
        for key in keys
        if not all(key in nothing for nothing in without)
    ]
    return [row for row in rows if len(set(row[1:])) > 1]
