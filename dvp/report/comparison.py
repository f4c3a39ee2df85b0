"""compare.html: runs beside each other, what each came to and in which settings they differ."""

from collections.abc import Sequence
from pathlib import Path

from dvp.report.chart import LETTERS, Chart, Line
from dvp.report.page import shown, table, write_page
from dvp.report.pictures import write_pictures

Rows = Sequence[Sequence[str]]
Curves = Sequence[tuple[Sequence[float], Sequence[float]]]  # updates and values of each run
ALIKE = "The runs differ in no setting that changes what is computed."


def report_comparison(folder: Path, metrics: str, runs: Rows, settings: Rows, curves: Curves) -> None:
    """Write compare.html and its chart as a picture into the folder; raises UserError where it cannot be written.

    runs: a head and a row each; settings: a row each, with the value of every run.
    """
    chart = comparison_chart(metrics, curves)
    body = [shown(chart), table(_lettered(runs), headed=True), "<h2>Settings that differ</h2>"]
    body += [table(_headed(settings), headed=True) if settings else f"<p>{ALIKE}</p>"]
    write_page(folder / "compare.html", f"Runs compared: {metrics}", body)
    write_pictures(folder, {"compare": chart})


def comparison_lines(metrics: str, runs: Rows, settings: Rows, curves: Curves) -> str:
    """The same as text."""
    parts = [comparison_chart(metrics, curves).text(), _columns(_lettered(runs))]
    return "\n\n".join([*parts, _columns(_headed(settings)) if settings else ALIKE])


def comparison_chart(metrics: str, curves: Curves) -> Chart:
    """A line for each run, named by its letter."""
    lines = [Line(_letter(number), x, y, colour=number) for number, (x, y) in enumerate(curves)]
    return Chart(f"{metrics} in percent", "updates", lines)


def _lettered(runs: Rows) -> list[list[str]]:
    head, *rows = runs
    return [["", *head], *([_letter(number), *row] for number, row in enumerate(rows))]


def _headed(settings: Rows) -> list[list[str]]:
    return [["setting", *map(_letter, range(len(settings[0]) - 1))], *map(list, settings)]


def _letter(number: int) -> str:
    again = number // len(LETTERS)
    return LETTERS[number % len(LETTERS)] + (str(again + 1) if again else "")


def _columns(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
