"""A chart of lines with bands: laid out once, written as inline SVG, as a picture, or in letters for a terminal."""

import math
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 90, 28, 40  # margins
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")  # Okabe and Ito's
INK, GRID, MARK = "#222222", "#e6e6e6", "#999999"
TICKS = 5  # about so many on an axis
NAME_HEIGHT = 12
BAND = 0.15  # its opacity
COLUMNS, ROWS = 64, 12  # of a chart in letters
LETTERS = string.ascii_letters
LONG = 20  # points of a line

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line: points (x, y), half the height of its band at each, and how much it stands out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[float] = ()
    colour: int = 0
    bold: bool = False

    def halves(self) -> Sequence[float]:
        """Half the band's height at each point, 0 where there is none."""
        return self.band or [0.0] * len(self.y)

    def settled(self) -> "Line":
        """Without a band and, if it is long, without its first tenth, whose fall or rise would hide the rest."""
        start = len(self.x) // 10 if len(self.x) > LONG else 0
        return replace(self, x=self.x[start:], y=self.y[start:], band=())


class Stroke(NamedTuple):
    """Points that are joined, or, filled, the band that they are the edge of. name: of the line, shown on a page."""

    points: Sequence[Point]
    colour: str
    width: float = 1
    dashed: bool = False
    filled: bool = False
    name: str = ""


class Words(NamedTuple):
    """Words at a point of their base line: its start, middle or end."""

    point: Point
    text: str
    anchor: str = "start"
    colour: str = INK
    title: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over one x axis; levels and moments are named lines across and down."""

    title: str
    x_label: str
    lines: Sequence[Line]
    levels: dict[str, float] = field(default_factory=dict)
    moments: dict[str, float] = field(default_factory=dict)

    def parts(self) -> Iterator[Stroke | Words]:
        """What is drawn, from below upwards, WIDTH x HEIGHT, down from the upper left corner."""
        low, high = self._range()
        last = max([1.0, *(x for line in self.lines for x in line.x), *self.moments.values()])

        def place(x: float, y: float) -> Point:
            across, up = x / last, (y - low) / (high - low)
            return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

        yield Words((LEFT, 16), self.title, title=True)
        for up in _ticks(low, high):
            yield Stroke([place(0, up), place(last, up)], GRID)
            yield Words(_moved(place(0, up), -6, 4), f"{up:.4g}", "end")
        for across in _ticks(0, last, whole=True):
            yield Words(_moved(place(across, low), 0, 16), f"{across:.0f}", "middle")
        yield Words(_moved(place(last / 2, low), 0, 34), self.x_label, "middle")
        for name, level in self.levels.items():
            yield Stroke([place(0, level), place(last, level)], MARK, dashed=True)
            below = place(0, level)[1] < TOP + NAME_HEIGHT  # else it would stand in the title
            yield Words(_moved(place(0, level), 4, NAME_HEIGHT if below else -4), name)
        for name, moment in self.moments.items():
            yield Stroke([place(moment, low), place(moment, high)], MARK, dashed=True)
            yield Words(_moved(place(moment, high), -4, 12), name, "end")
        drawn = [line for line in self.lines if line.x]
        for line in drawn:
            yield from _drawn(line, place)
        ends = _apart([place(line.x[-1], line.y[-1]) for line in drawn])
        for line, end in zip(drawn, ends, strict=True):
            yield Words(_moved(end, 6, 4), line.name, colour=_colour(line))

    def svg(self) -> str:
        """The chart as an <svg> element."""
        body = "".join(map(_svg, self.parts()))
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title)}">{body}</svg>'

    def text(self, columns: int = COLUMNS, rows: int = ROWS, letters: str = LETTERS) -> str:
        """The chart in letters, a line's own for each; where lines meet, that of the last, or of one that stands out.

        columns, rows: of what is within the axes; letters: of the lines in turn. Of long lines the first tenth is left
        out.
        """
        lines = [line.settled() for line in self.lines]
        low, high = replace(self, lines=lines)._range()
        last = max([1.0, *(x for line in lines for x in line.x)])
        cells = [[" "] * columns for _ in range(rows)]
        lettered = zip(letters * len(lines), lines, strict=False)
        for letter, line in sorted(lettered, key=lambda one: one[1].bold):
            places = [round(x / last * (columns - 1)) for x in line.x]
            for column in range(places[0], places[-1] + 1) if places else ():
                y = np.interp(column, places, line.y)
                cells[round((high - y) / (high - low) * (rows - 1))][column] = letter
        edge = {0: f"{high:.4g}", rows - 1: f"{low:.4g}"}
        drawn = [f"{edge.get(number, ''):>8} |{''.join(row).rstrip()}" for number, row in enumerate(cells)]
        end = f" {last:.0f} {self.x_label}"
        return "\n".join([self.title, *drawn, f"{'':9}0{end:->{columns}}"])

    def _range(self) -> tuple[float, float]:
        points = [(y, half) for line in self.lines for y, half in zip(line.y, line.halves(), strict=True)]
        points += [(level, 0.0) for level in self.levels.values()]
        low = min((y - half for y, half in points), default=0.0)
        high = max((y + half for y, half in points), default=1.0)
        if high > low:
            return low, high
        room = abs(high) / 2 or 0.5  # around a line that is level
        return low - room, high + room


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round numbers from low to high, about TICKS apart."""
    least = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= least * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    first, end = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, end + 1)]


def _moved(point: Point, right: float, down: float) -> Point:
    return point[0] + right, point[1] + down


def _drawn(line: Line, place: Callable[[float, float], Point]) -> Iterator[Stroke]:
    colour = _colour(line)
    points = list(zip(line.x, line.y, line.halves(), strict=True))
    edges = [*((x, y + half) for x, y, half in points), *((x, y - half) for x, y, half in reversed(points))]
    if line.band:
        yield Stroke([place(*edge) for edge in edges], colour, filled=True)
    yield Stroke([place(x, y) for x, y, _ in points], colour, 3 if line.bold else 1.5, name=line.name)


def _svg(part: Stroke | Words) -> str:
    if isinstance(part, Words):
        (x, y), kind = part.point, ' class="title"' if part.title else ""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{part.anchor}" fill="{part.colour}"'
        return f"<text {place}{kind}>{escape(part.text)}</text>"
    if len(part.points) == 1:
        (x, y), name = part.points[0], f"<title>{escape(part.name)}</title>"
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 * part.width:g}" fill="{part.colour}">{name}</circle>'
    path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in part.points)
    if part.filled:
        return f'<path d="{path}Z" fill="{part.colour}" opacity="{BAND}"/>'
    look = f'fill="none" stroke="{part.colour}" stroke-width="{part.width:g}" stroke-linejoin="round"'
    look += ' stroke-dasharray="4 3"' if part.dashed else ""
    return f'<path d="{path}" {look}>{f"<title>{escape(part.name)}</title>" if part.name else ""}</path>'


def _colour(line: Line) -> str:
    return COLOURS[line.colour % len(COLOURS)]


def _apart(points: Sequence[Point]) -> list[Point]:
    """The points, those that names would share moved down, and up again where they would leave the chart."""
    moved, floor = list(points), 0.0
    order = sorted(range(len(points)), key=lambda index: points[index][1])
    for index in order:
        floor = max(points[index][1], floor + NAME_HEIGHT)
        moved[index] = (points[index][0], floor)
    ceiling = float(HEIGHT - NAME_HEIGHT)
    for index in reversed(order):
        moved[index] = (moved[index][0], min(moved[index][1], ceiling))
        ceiling = moved[index][1] - NAME_HEIGHT
    return moved
