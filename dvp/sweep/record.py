"""The cells of a sweep, a file each, and sweep.json, the table made of them. Several commands may fill one sweep."""

import hashlib
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvp.errors import UserError
from dvp.files import read_json, require_fields, write_json
from dvp.search import trained_parts

VERSION = 1
# Of a cell
FIELDS = {"version": int, "layer": int, "seed": int, "value": int | float | None, "seconds": int | float}
UNITS = {"score": "percent", "speed": "updates until passed"}  # of the metric
# Settings by which no two sweeps differ.
APART = ("layers", "seeds", "seed", "insert_layer", "log_dir", "logger", "num_workers", "test_split")


def sweep_folder(config: dict[str, Any], tables: dict[str, int]) -> Path:
    """Where the sweep of these settings on these tables lies: the same for all that fill it."""
    told = {key: value for key, value in config.items() if key not in APART} | {"tables": tables}
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    return Path(config["log_dir"]) / f"{config['exp_name']}_sweep" / key


def write_cell(folder: Path, cell: dict[str, Any]) -> None:
    """Write down one finished training: layer, seed, value, updates, seconds, run."""
    write_json(folder / "cells" / f"K{cell['layer']}_seed{cell['seed']}.json", {"version": VERSION} | cell)


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """The finished trainings of a sweep, by layer and seed; raises UserError for a newer or damaged one."""
    cells = [_read(path) for path in (folder / "cells").glob("K*_seed*.json")]
    return sorted(cells, key=lambda cell: (cell["layer"], cell["seed"]))


def _read(path: Path) -> dict[str, Any]:
    again = "remove it, and the sweep trains there again"
    cell = read_json(path, remedy=again)
    require_fields(path, cell, FIELDS, again)
    if cell["version"] > VERSION:
        raise UserError(
            f"{path} has format {cell['version']}, this code reads up to {VERSION}: take the code that wrote it."
        )
    return cell


def table_of(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per layer the mean and the spread (standard deviation; None of one seed) over seeds, and how many there are.

    Where a training never passed the level, there is no mean.
    """
    rows = []
    for layer in sorted({cell["layer"] for cell in cells}):
        values = [cell["value"] for cell in cells if cell["layer"] == layer]
        passed = [value for value in values if value is not None]
        whole = len(passed) == len(values)
        mean = statistics.mean(passed) if whole else None
        spread = statistics.stdev(passed) if whole and len(passed) > 1 else None
        rows.append({"layer": layer, "mean": mean, "spread": spread, "seeds": len(values), "passed": len(passed)})
    return rows


def beside(
    table: Sequence[dict[str, Any]], cells: Sequence[dict[str, Any]], search: dict[str, Any], metric: str
) -> dict[str, Any]:
    """How a search looks beside a sweep: its K, what that loses against the best layer, and its seconds.

    best_layers: those that no other is ahead of, to what is shown of it. regret: in points, or for metric=speed in
    updates; None where its K was not swept, or did not pass the level, as regret_told says in words. Where one of the
    layers that it compares has a single seed, these say that chance is not known.
    """
    layers, means = best_layers(table, metric), {row["layer"]: row["mean"] for row in table}
    layer, sign = search["insert_layer"], -1 if metric == "speed" else 1
    known = {key: search[key] for key in ("insert_layer", "verdict", "decided", "updates", "seconds")}
    known["use_adapter"] = search["config"].get("use_adapter", True)
    best = max((sign * means[one] for one in layers), default=None)
    regret = best - sign * means[layer] if means.get(layer) is not None else None
    known |= {
        "best_layers": layers,
        "best_told": best_told(table, metric),
        "regret": regret,
        "sweep_seconds": sum(cell["seconds"] for cell in cells),
    }
    if regret is not None and len(layers) == len(table) > 1:
        return known | {"regret_told": "not to be told, since all layers are alike"}
    if regret is not None:
        unsure = any(row["seeds"] == 1 for row in table if row["layer"] in (layer, *layers))
        chance = "; one seed: no spread is known" if unsure else ""
        return known | {"regret_told": f"{regret:.2f} {'updates' if metric == 'speed' else 'points'}{chance}"}
    swept = any(row["layer"] == layer for row in table)
    why = "did not pass the level with every seed" if swept else "was not trained at"
    return known | {"regret_told": f"unknown, since K = {layer} {why}"}


def best_layers(table: Sequence[dict[str, Any]], metric: str) -> list[int]:
    """The layers that no other is ahead of, to what is shown of it; none where no training came to anything."""
    means = {row["layer"]: row["mean"] for row in table if row["mean"] is not None}
    best = (min if metric == "speed" else max)(means.values(), default=None)
    return [layer for layer, mean in means.items() if _number(mean) == _number(best)]


def best_told(table: Sequence[dict[str, Any]], metric: str) -> str:
    """The best layers in words."""
    layers = best_layers(table, metric)
    return "none, all are alike" if len(layers) == len(table) > 1 else " and ".join(map(str, layers)) or "none"


def alike(table: Sequence[dict[str, Any]], metric: str) -> str:
    """What to say, and to do, where scores set no layer apart; empty where they do. No sweep knows a blind model's."""
    means = [row["mean"] for row in table if row["mean"] is not None]
    spreads = [row["spread"] for row in table if row["spread"] is not None]
    if metric == "speed" or len(means) < 2:
        return ""
    if len(best_layers(table, metric)) == len(table):
        why = f"all come to {_number(means[0])}"
    elif len(spreads) == len(table) and max(means) - min(means) <= max(spreads):
        why = "they are no further apart than the seeds of one of them"
    else:
        return ""
    then = "train longer (max_epoch, max_steps), and sweep again"
    return f"Nothing sets the layers apart: {why}. If a blind model comes to as much, nothing was learnt yet: {then}."


def write_sweep(path: Path, sweep: dict[str, Any]) -> None:
    """Write sweep.json, whole."""
    write_json(path, {"version": VERSION} | sweep)


def rows_for_search(sweep: dict[str, Any], folder: Path) -> list[list[str]]:
    """What a sweep has to say on the page of the search beside it, as rows: its layers, the regret, both costs."""
    unit = UNITS[sweep["metric"]]
    rows = [[f"K = {row['layer']}, {sweep['monitor']}, {unit}", _number(row["mean"])] for row in sweep["table"]]
    search = sweep["search"]
    rows += [["budget of each training", budget(sweep)]]
    rows += [["regret of the search", search["regret_told"]]]
    rows += [
        [
            f"counted operations of the search, and of the sweep of {sweep['extent']}",
            f"{search['flops']:.3g}, {search['sweep_flops']:.3g}",
        ]
    ]
    return [*rows, ["details", str(folder / "sweep.html")]]


def trained_at(table: Sequence[dict[str, Any]], num_layers: int) -> str:
    """The layers that were trained at, in words."""
    *front, last = [str(row["layer"]) for row in table]
    if len(table) == num_layers:
        return "every layer"
    return f"layers {', '.join(front)} and {last}" if front else f"layer {last}"


def extent(table: Sequence[dict[str, Any]], num_layers: int) -> str:
    """Of how many of the layers a sweep is, in words."""
    return f"all {num_layers} layers" if len(table) == num_layers else f"{len(table)} of {num_layers} layers"


def budget(sweep: dict[str, Any]) -> str:
    """How long the trainings of a sweep were, in words."""
    least, most = (which(cell["updates"] for cell in sweep["cells"]) for which in (min, max))
    updates = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    return f"{updates} updates of {sweep['config']['batch_size']} rows"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def table_lines(sweep: dict[str, Any]) -> str:
    """What a sweep found, and the search beside it, in words and numbers."""
    unit = UNITS[sweep["metric"]]
    lines = [f"{sweep['monitor']}, {unit}", f"{'layer':>7}{'mean':>10}{'spread':>10}{'seeds':>7}"]
    for row in sweep["table"]:
        numbers = (_number(number) for number in (row["mean"], row["spread"]))
        never = "" if row["passed"] == row["seeds"] else f"  {row['seeds'] - row['passed']} never passed"
        lines.append(f"{row['layer']:7}" + "{:>10}{:>10}".format(*numbers) + f"{row['seeds']:7}{never}")
    table, metric = sweep["table"], sweep["metric"]
    lines += [words] if (words := alike(table, metric)) else []
    search, best = sweep["search"], best_told(table, metric)
    if search is None:
        return "\n".join([*lines, f"Best here: {best}. No search of these settings lies beside it."])
    parts = trained_parts(search["use_adapter"])
    lines += [
        f"The search {search['path']} (with {parts}) says {search['verdict']}",
        f"  regret of K = {search['insert_layer']}: {search['regret_told']} (best here: {best})",
        f"  cost: {search['flops']:.3g} of {search['sweep_flops']:.3g} counted FLOPs "
        f"({100 * search['flops'] / search['sweep_flops']:.1f} % of this sweep of {sweep['extent']}), "
        f"{search['seconds']:.0f} of {search['sweep_seconds']:.0f} s",
    ]
    return "\n".join(lines)
