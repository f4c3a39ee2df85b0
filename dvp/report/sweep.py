"""sweep.html: what a training at every K came to, with the search beside it, on one page made from its sweep.json."""

from html import escape
from pathlib import Path
from typing import Any

from dvp.report.chart import Chart, Line
from dvp.report.page import shown, table, to_repeat, write_page
from dvp.report.pictures import write_pictures

MEANT = "seeds: how many trainings there are at the layer; mean and spread (standard deviation) are over them."
PASSED = " passed: how many of them came to the level; where not all did, there is no mean."


def report_sweep(folder: Path, sweep: dict[str, Any]) -> None:
    """Write the page of a sweep, given as what sweep.json holds, and its chart as a picture, into its folder."""
    body = [f'<p class="verdict">{escape(sweep["alike"])}</p>'] if sweep["alike"] else []
    body += [shown(chart(sweep)), _layers(sweep), "<h2>The search</h2>"]
    body += [_search(sweep)] if sweep["search"] else ["<p>No search of these settings lies beside it.</p>"]
    body += ["<h2>Trainings</h2>", _cells(sweep), *to_repeat(sweep["command"], sweep["about"])]
    write_page(folder / "sweep.html", f"Training at {sweep['trained_at']}: {sweep['config']['exp_name']}", body)
    write_pictures(folder, {"sweep": chart(sweep)})


def chart(sweep: dict[str, Any]) -> Chart:
    """The mean over seeds at every layer, its spread as a band, and the search's K."""
    rows = [row for row in sweep["table"] if row["mean"] is not None]
    what = f"updates until {sweep['level']} %" if sweep["metric"] == "speed" else f"{sweep['monitor']} in percent"
    layers, means = [row["layer"] for row in rows], [row["mean"] for row in rows]
    line = Line("mean over seeds", layers, means, [row["spread"] or 0.0 for row in rows], bold=True)
    moments = {"the search's K": float(sweep["search"]["insert_layer"])} if sweep["search"] else {}
    return Chart(what, "layer", [line], {}, moments)


def _layers(sweep: dict[str, Any]) -> str:
    speed = sweep["metric"] == "speed"
    rows = [["layer", "mean", "spread", "seeds", *(["passed"] if speed else [])]]
    for row in sweep["table"]:
        numbers = ["" if number is None else f"{number:.2f}" for number in (row["mean"], row["spread"])]
        rows.append([str(row["layer"]), *numbers, str(row["seeds"]), *([str(row["passed"])] if speed else [])])
    return table(rows, headed=True) + f"<p>{MEANT}{PASSED if speed else ''}</p>"


def _search(sweep: dict[str, Any]) -> str:
    search = sweep["search"]
    costs = f"{search['flops']:.3g} and {search['sweep_flops']:.3g}"
    return table(
        [
            ["what it says", search["verdict"]],
            ["where", search["path"]],
            ["best here", search["best_told"]],
            ["regret", search["regret_told"]],
            [f"counted operations, search and sweep of {sweep['extent']}", costs],
            ["seconds, search and sweep", f"{search['seconds']:.0f} and {search['sweep_seconds']:.0f}"],
        ]
    )


def _cells(sweep: dict[str, Any]) -> str:
    rows = [["layer", "seed", "value", "updates", "seconds", "run"]]
    for cell in sweep["cells"]:
        value = "never" if cell["value"] is None else f"{cell['value']:.2f}"
        rows.append(
            [str(cell["layer"]), str(cell["seed"]), value, str(cell["updates"]), f"{cell['seconds']:.0f}", cell["run"]]
        )
    return table(rows, headed=True)
