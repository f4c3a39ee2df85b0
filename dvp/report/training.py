"""report.html: how a training went and what it answers, on one page, given what was collected of it."""

import base64
import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from dvp.report.chart import LETTERS, Chart, Line
from dvp.report.page import shown, table, to_repeat, write_page
from dvp.report.pictures import write_pictures

POINTS = 200  # of a line: of more, so many in a row give one, their mean
GROUPS = 12  # the largest have a row of their own
LONG = 5  # words of an answer: it and longer ones are one group
RIGHT = 0.5  # the score from which on an answer counts among the right ones
SHEETS = 3  # right examples, and as many wrong ones, whose heads stand on one picture
LINE, FONT = 28, 14  # of the words above each
HALF, LOW = 28, 4  # columns and rows of a chart in letters that has another beside it
STYLE = """
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(19em, 1fr)); gap: 1.2em }
.example { border-top: 3px solid #009e73; padding-top: .4em } .wrong .example { border-color: #d55e00 }
.example img { width: 48%; vertical-align: top; } .example p { margin: .3em 0 } .example details img { width: 100% }
.bar { background: #0072b2; height: .7em; min-width: 1px } .bars td { white-space: nowrap }
td.share { width: 40%; vertical-align: middle }
small { color: #666 }
"""


Columns = dict[str, tuple[list[float], list[float]]]  # of metrics.csv: updates and values by name


class Scored(NamedTuple):
    """A question that was answered: its group, its right answers, the likeliest first, and its score from 0 to 1."""

    group: str
    right: tuple[str, ...]
    score: float


class Group(NamedTuple):
    """Some of the questions, how many they are, and their mean score in percent."""

    name: str
    count: int
    score: float


class Example(NamedTuple):
    """An answer to look at.

    pictures: JPEG, the question's, what the prompt was made of, and the same by heads, as far as they are.
    """

    question: str
    answer: str
    right: tuple[str, ...]
    score: float
    pictures: tuple[bytes, ...]


class Training(NamedTuple):
    """What is known of a training at its end.

    ask, command: what is typed to ask it, and to repeat it. facts, about: names and words, of what it did, and of when
    and with which versions. groups: what questions are grouped by.
    answered: in words, what was looked at; scored: those questions, examples some of them.
    """

    title: str
    verdict: str
    ask: str
    command: str
    facts: dict[str, str]
    about: dict[str, str]
    charts: dict[str, Chart]
    groups: str
    answered: str
    scored: list[Scored]
    examples: list[Example]


def report_training(folder: Path, training: Training, loggers: Iterable[Any], update: int) -> None:
    """Write report.html and its charts as pictures into a training's folder and to those loggers that take them.

    Raises UserError where the folder cannot be written.
    """
    body = [f'<p class="verdict">{escape(training.verdict)}</p>', *map(shown, training.charts.values())]
    if training.scored:
        body += [f"<h2>What it answers</h2><p>{escape(training.answered)}</p>"]
        for words, groups in (
            (training.groups, by_group(training.scored)),
            ("words of the right answer", by_length(training.scored)),
        ):
            body += [f"<h3>By {escape(words)}</h3>", _bars(words, groups)]
        right = [one for one in training.examples if one.score >= RIGHT]
        wrong = [one for one in training.examples if one.score < RIGHT]
        body += [_examples("right", right), _examples("wrong", wrong)]
    body += ["<h2>What was done</h2>", table(list(training.facts.items()))]
    body += ["<h2>To ask it</h2>", f"<pre>{escape(training.ask)}</pre>"]
    body += to_repeat(training.command, training.about)
    write_page(folder / "report.html", training.title, body, STYLE)
    write_pictures(folder, training.charts | heat_maps(training.examples), loggers, update)


def heat_maps(examples: Sequence[Example]) -> dict[str, Image.Image]:
    """One picture of what the prompt was made of by heads, for some answers that are right and some wrong; or none."""
    known = [one for one in examples if len(one.pictures) == 3]
    right, wrong = ([one for one in known if (one.score >= RIGHT) == kind][:SHEETS] for kind in (True, False))
    sheets = [(one, Image.open(io.BytesIO(one.pictures[2]))) for one in right + wrong]
    if not sheets:
        return {}
    size = max(sheet.width for _, sheet in sheets), sum(LINE + sheet.height for _, sheet in sheets)
    page, top = Image.new("RGB", size, "white"), 0
    for one, sheet in sheets:
        words = f"{one.question}  {one.answer} ({'right' if one.score >= RIGHT else 'wrong'})"
        ImageDraw.Draw(page).text((LINE / 4, top + LINE / 4), words, "black", ImageFont.load_default(FONT))
        page.paste(sheet, (0, top + LINE))
        top += LINE + sheet.height
    return {"heat_maps": page}


def by_group(scored: Sequence[Scored]) -> list[Group]:
    """The groups of the questions, the largest first, those beyond GROUPS as one."""
    return _grouped(scored, [one.group for one in scored])


def by_length(scored: Sequence[Scored]) -> list[Group]:
    """The questions by the words of their likeliest right answer, the shortest first; those without one come last."""
    names = []
    for one in scored:
        words = len(one.right[0].split()) if one.right else 0
        names.append(f"{LONG} and more" if words >= LONG else str(words) if words else "none in the vocabulary")
    return sorted(_grouped(scored, names), key=lambda group: group.name)


def _grouped(scored: Sequence[Scored], names: Sequence[str]) -> list[Group]:
    found: dict[str, list[float]] = {}
    for one, name in zip(scored, names, strict=True):
        found.setdefault(name, []).append(100 * one.score)
    order = sorted(found, key=lambda name: (-len(found[name]), name))
    if len(order) > GROUPS + 1:
        rest = [score for name in order[GROUPS:] for score in found[name]]
        found |= {(others := f"{len(order) - GROUPS} others"): rest}
        order = [*order[:GROUPS], others]
    return [Group(name, len(found[name]), sum(found[name]) / len(found[name])) for name in order]


def read_metrics(path: Path) -> Columns:
    """The columns of a metrics.csv: updates and values, those that are finite."""
    columns: Columns = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch") and math.isfinite(float(value)):
                    updates, values = columns.setdefault(name, ([], []))
                    updates.append(float(row["step"]) + 1)  # Lightning counts from 0
                    values.append(float(value))
    return columns


def training_charts(columns: Columns, metric: str, best: int | None) -> dict[str, Chart]:
    """Loss, metric by split and learning rate over the updates, of the columns of metrics.csv; best: an update."""
    losses = {name.split("/")[-1]: column for name, column in columns.items() if name.endswith("/train/loss")}
    scores = {name.split("/")[1]: column for name, column in columns.items() if name.endswith(f"/{metric}")}
    moments = {} if best is None else {"best": float(best)}
    charts = {
        "loss": Chart("loss of the training rows", "updates", _lines(losses)),
        "metric": Chart(f"{metric} in percent", "updates", _lines(scores), {}, moments),
        "learning_rate": Chart("learning rate", "updates", _lines(_rates(columns))),
    }
    return {name: chart for name, chart in charts.items() if chart.lines}


def training_lines(charts: dict[str, Chart]) -> str:
    """Loss and metric of `training_charts` beside each other in letters; empty where each is a single point at most."""
    texts = []
    for chart in (charts[name] for name in ("loss", "metric") if name in charts):
        if any(len(line.x) > 1 for line in chart.lines):
            named = [f"{letter} {line.name}" for letter, line in zip(LETTERS, chart.lines, strict=False)]
            title = f"{chart.title}: {', '.join(named)}" if len(named) > 1 else chart.title
            texts.append(replace(chart, title=title).text(HALF, LOW).splitlines())
    left = HALF + 12  # with what stands before the axis, and a gap
    return "\n".join("".join(f"{part:{left}}" for part in parts).rstrip() for parts in zip(*texts, strict=True))


def _rates(columns: Columns) -> Columns:
    """The rates that differ, by the number of the first group of parameters that has them."""
    rates: Columns = {}
    for name, column in columns.items():
        if name.startswith("lr-") and column not in rates.values():
            rates[f"group {name.rpartition('pg')[2]}" if "/pg" in name else "rate"] = column
    return {"rate": next(iter(rates.values()))} if len(rates) == 1 else rates


def _lines(columns: Columns) -> list[Line]:
    return [
        Line(name, _thinned(updates), _thinned(values), colour=number, bold=number == 0)
        for number, (name, (updates, values)) in enumerate(columns.items())
    ]


def _thinned(numbers: list[float]) -> list[float]:
    size = -(-len(numbers) // POINTS)
    parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return [sum(part) / len(part) for part in parts]


def _bars(words: str, groups: Sequence[Group]) -> str:
    rows = [f"<tr><th>{escape(words)}</th><th>questions</th><th>score</th><th></th></tr>"]
    for name, count, score in groups:
        bar = f'<div class="bar" style="width:{score:.1f}%"></div>'
        cells = f"<td>{escape(name)}</td><td>{count:,}</td><td>{score:.1f}&nbsp;%</td>"
        rows.append(f'<tr>{cells}<td class="share">{bar}</td></tr>')
    return f'<div class="wide bars"><table>{"".join(rows)}</table></div>'


def _examples(kind: str, examples: Sequence[Example]) -> str:
    shown_ = "".join(map(_example, examples)) or "<p>none among the first questions</p>"
    return f'<h2>Answers that are {kind}</h2><div class="examples {kind}">{shown_}</div>'


def _example(one: Example) -> str:
    alts = ("the picture", "what the prompt was made of", "the same by heads")
    shown_ = [
        f'<img alt="{alt}" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}"> '
        for alt, data in zip(alts, one.pictures, strict=False)
    ]
    heads = f"<details><summary>by heads</summary>{shown_[2]}</details>" if len(shown_) > 2 else ""
    pictures = "".join(shown_[:2]) + heads
    right = " or ".join(one.right[:3]) or "none in the vocabulary"
    points = "" if one.score in (0, 1) else f" <small>score {100 * one.score:.0f} %</small>"
    beside = "" if one.score == 1 and len(one.right) == 1 else f"<p><small>right: {escape(right)}</small></p>"
    words = f"<p>{escape(one.question)}</p><p><b>{escape(one.answer)}</b>{points}</p>{beside}"
    return f'<div class="example">{pictures}{words}</div>'
