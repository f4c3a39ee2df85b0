"""A chart of lines with bands as inline SVG, so that a page needs nothing beside itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 90, 28, 40  # margins
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")  # Okabe and Ito's
TICKS = 5
NAME_HEIGHT = 12


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


@dataclass(frozen=True)
class Chart:
    """Lines over one x axis; levels and moments are named lines across and down."""

    title: str
    x_label: str
    lines: Sequence[Line]
    levels: dict[str, float] = field(default_factory=dict)
    moments: dict[str, float] = field(default_factory=dict)

    def svg(self) -> str:
        """The chart as an <svg> element."""
        low, high = self._range()
        last = max([1.0, *(x for line in self.lines for x in line.x), *self.moments.values()])

        def place(x: float, y: float) -> tuple[float, float]:
            across, up = x / last, (y - low) / (high - low)
            return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

        parts = [f'<text x="{LEFT}" y="16" class="title">{escape(self.title)}</text>']
        for step in range(TICKS + 1):
            across, up = last * step / TICKS, low + (high - low) * step / TICKS
            parts.append(_rule(place(0, up), place(last, up), "grid"))
            parts.append(_text(place(0, up), (-6, 4), f"{up:.3g}", "end"))
            parts.append(_text(place(across, low), (0, 16), f"{across:.0f}", "middle"))
        parts.append(_text(place(last / 2, low), (0, 34), self.x_label, "middle"))
        for name, level in self.levels.items():
            parts += [_rule(place(0, level), place(last, level), "mark"), _text(place(0, level), (4, -4), name)]
        for name, moment in self.moments.items():
            parts.append(_rule(place(moment, low), place(moment, high), "mark"))
            parts.append(_text(place(moment, high), (-4, 12), name, "end"))
        drawn = [line for line in self.lines if line.x]
        parts += [_drawn(line, place) for line in drawn]
        ends = _apart([place(line.x[-1], line.y[-1]) for line in drawn])
        parts += [_text(end, (6, 4), line.name, colour=_colour(line)) for line, end in zip(drawn, ends, strict=True)]
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'

    def _range(self) -> tuple[float, float]:
        points = [(y, half) for line in self.lines for y, half in zip(line.y, line.halves(), strict=True)]
        points += [(level, 0.0) for level in self.levels.values()]
        low = min((y - half for y, half in points), default=0.0)
        high = max((y + half for y, half in points), default=1.0)
        return (low, high) if high > low else (low - 0.5, high + 0.5)


Point = tuple[float, float]


def _rule(start: Point, end: Point, kind: str) -> str:
    return f'<path d="M{start[0]:.1f},{start[1]:.1f}L{end[0]:.1f},{end[1]:.1f}" class="{kind}"/>'


def _text(point: Point, shift: Point, words: str, anchor: str = "start", colour: str = "currentColor") -> str:
    x, y = point[0] + shift[0], point[1] + shift[1]
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def _drawn(line: Line, place: Callable[[float, float], Point]) -> str:
    colour = _colour(line)
    points = list(zip(line.x, line.y, line.halves(), strict=True))
    edges = [*((x, y + half) for x, y, half in points), *((x, y - half) for x, y, half in reversed(points))]
    band = f'<path d="{_path([place(*edge) for edge in edges])}Z" fill="{colour}" opacity="0.15"/>' if line.band else ""
    path = _path([place(x, y) for x, y, _ in points])
    stroke = f'fill="none" stroke="{colour}" stroke-width="{3 if line.bold else 1.5}"'
    return f'{band}<path d="{path}" {stroke}><title>{escape(line.name)}</title></path>'


def _colour(line: Line) -> str:
    return COLOURS[line.colour % len(COLOURS)]


def _apart(points: Sequence[Point]) -> list[Point]:
    """The points, those that names would share moved down."""
    moved, floor = list(points), 0.0
    for index in sorted(range(len(points)), key=lambda index: points[index][1]):
        x, y = points[index]
        floor = max(y, floor + NAME_HEIGHT)
        moved[index] = (x, floor)
    return moved


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
