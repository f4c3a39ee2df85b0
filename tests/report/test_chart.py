"""A chart: the same as SVG, as a picture and in letters."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageColor

from dvp.report.chart import COLOURS, COLUMNS, GRID, LONG, MARK, Chart, Line, Words
from dvp.report.pictures import SCALE, draw, write_pictures

CHART = Chart("a < b", "x", [Line("one", [0, 10], [0, 4], [1, 1])], {"level": 2.0}, {"then": 5.0})


def at(picture: Image.Image, x: float, y: float) -> tuple[int, ...]:
    return picture.getpixel((round(SCALE * x), round(SCALE * y)))


def test_the_picture_has_what_the_svg_has_where_it_is() -> None:
    picture = draw(CHART)
    middle = (56 + 670) / 2, (221.3 + 66.7) / 2
    assert at(picture, *middle) == ImageColor.getrgb(COLOURS[0])
    faint = at(picture, middle[0] + 9, middle[1] + 20)  # in the band
    assert faint != (255, 255, 255) and faint[0] > 200
    assert at(picture, middle[0] + 9, middle[1] + 100) == (255, 255, 255)  # below it
    across = [at(picture, x, 144.0) for x in range(60, 120)]  # the level
    assert {ImageColor.getrgb(MARK)} < set(across)  # with gaps
    assert ImageColor.getrgb(GRID) in [at(picture, 600, y) for y in range(30, 260)]


def test_a_single_point_is_a_dot_in_both() -> None:
    chart = Chart("", "x", [Line("one", [5], [1], colour=1)])
    (dot,) = ElementTree.fromstring(chart.svg()).iter("circle")
    found = at(draw(chart), float(dot.get("cx")), float(dot.get("cy")))
    assert found == ImageColor.getrgb(COLOURS[1]) == ImageColor.getrgb(dot.get("fill"))


@pytest.mark.parametrize(
    "x, y, across, up",
    [
        ([0, 3], [0, 100], ["0", "1", "2", "3"], ["0", "20", "40", "60", "80", "100"]),
        ([0, 300], [39.4, 39.4], ["0", "100", "200", "300"], ["20", "30", "40", "50"]),
        ([1, 7], [1e-4, 4e-4], ["0", "2", "4", "6"], ["0.0001", "0.0002", "0.0003", "0.0004"]),
    ],
)
def test_ticks_are_round(x: list[float], y: list[float], across: list[str], up: list[str]) -> None:
    words = [part for part in Chart("", "x", [Line("one", x, y)]).parts() if isinstance(part, Words)]
    assert [part.text for part in words if part.anchor == "middle" and part.text != "x"] == across
    assert [part.text for part in words if part.anchor == "end"] == up


def test_names_stay_within_the_chart() -> None:
    lines = [Line(f"line {number}", [0, 1], [5, 0], colour=number) for number in range(6)]
    places = [
        part.point[1] for part in Chart("", "x", lines).parts() if isinstance(part, Words) and "line" in part.text
    ]
    assert max(places) < 300 and min(abs(a - b) for a in places for b in places if a != b) >= 12


@pytest.mark.parametrize("level, beside", [(4.0, 28 + 12), (2.0, 144 - 4)])
def test_a_level_is_named_beside_it_and_not_in_the_title(level: float, beside: float) -> None:
    parts = Chart("title", "x", [Line("one", [0, 1], [0, 4])], {"level": level}).parts()
    (name,) = [part for part in parts if isinstance(part, Words) and part.text == "level"]
    assert name.point[1] == beside


def test_letters_follow_the_lines() -> None:
    text = Chart(
        "up and level", "updates", [Line("", [0, 10], [0, 4]), Line("", [5, 10], [2, 2]), Line("", [], [])]
    ).text()
    title, *rows = text.splitlines()
    assert title == "up and level" and rows[0].startswith("       4 |") and rows[0].endswith("a")
    assert rows[11].startswith("       0 |a") and "10 updates" in rows[-1]
    (level,) = [row for row in rows if "bb" in row]
    assert level.endswith("b" * (COLUMNS // 2)) and "c" not in text.replace("updates", "")


def test_in_letters_a_long_line_is_seen_where_it_settles() -> None:
    y = [1000.0, *(9.0 - number % 3 for number in range(LONG))]
    long, short = (Chart("", "x", [Line("", list(range(len(part))), part)]).text() for part in (y, y[:-1]))
    assert "1000" in short and "1000" not in long and long.splitlines()[1].startswith("       9 |")
    assert long.splitlines()[-1].endswith(f"{LONG} x")


def test_one_that_stands_out_is_seen_where_lines_meet() -> None:
    lines = [Line("", [0, 1], [1, 2], bold=bold) for bold in (True, False)]
    _, *rows, _ = Chart("", "x", lines).text(columns=9, rows=3, letters="12").splitlines()
    cells = "".join(row.partition("|")[2] for row in rows)
    assert cells.count("1") == 9 and "2" not in cells


def test_pictures_lie_beside_the_page(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"loss": CHART})
    assert Image.open(tmp_path / "report" / "loss.png").size == (760 * SCALE, 300 * SCALE)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["loss.png"]
