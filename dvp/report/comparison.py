"""compare.html: runs beside each other, what each came to and in which settings they differ."""

from collections.abc import Sequence
from pathlib import Path

from dvp.report.chart import LETTERS, Chart, Line
from dvp.report.page import shown, table, write_page
from dvp.report.pictures import write_pictures

Rows = Sequence[Sequence[str]]
Curves = Sequence[tuple[Sequence[float], Sequence[float]]]  # updates and values of each run
WIDE, GAP, LEAST = 100, 2, 12  # letters of a table and between its columns; of these each has LEAST, if they are many
CUT = "..."
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
    """The same as text: what is the same of all runs stands above them, and long words are cut."""
    alike, apart = _folded(runs)
    parts = [comparison_chart(metrics, curves).text(), alike + _columns(_lettered(apart))]
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


def _folded(runs: Rows) -> tuple[str, Rows]:
    """A line with what is the same in all rows below the head, and the rows without it."""
    columns = list(zip(*runs, strict=True))
    same = [column for column in columns if len(set(column[1:])) == 1]
    alike = ", ".join(f"{name} {value}" for name, value, *_ in same)
    return f"of all runs: {alike}\n" if alike else "", list(zip(*(c for c in columns if c not in same), strict=True))


def _columns(rows: Rows) -> str:
    """The rows as columns, within WIDE letters where these are few: of the longest words the middle is left out."""
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    room = WIDE - first - GAP * len(widths)
    most = next((most for most in range(max(widths), LEAST, -1) if sum(min(most, w) for w in widths) <= room), LEAST)
    layout = [first, *(min(most, width) for width in widths)]
    lines = ([row[0], *(_cut(cell, most) for cell in row[1:])] for row in rows)
    return "\n".join((" " * GAP).join(map(str.ljust, line, layout)).rstrip() for line in lines)


def _cut(cell: str, most: int) -> str:
    left = most - len(CUT)
    return cell if len(cell) <= most else cell[: left // 2] + CUT + cell[left // 2 - left :]
