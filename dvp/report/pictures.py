"""Charts and other pictures of a page: PNG files beside it, and the same in TensorBoard."""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from dvp.files import write_whole
from dvp.report.chart import BAND, HEIGHT, WIDTH, Chart, Point, Stroke, Words

SCALE, FINER = 2, 2  # pixels per unit of a chart, and how much finer it is drawn, so that edges are smooth
FONT, TITLE_FONT = 11, 14
DASH, GAP = 4, 3
ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}
FOLDER = "report"  # of the PNG files, and what their names begin with in TensorBoard


def draw(chart: Chart) -> Image.Image:
    """The chart as an RGB picture on white."""
    fine = SCALE * FINER
    page = Image.new("RGB", (WIDTH * fine, HEIGHT * fine), "white")
    for part in chart.parts():
        if isinstance(part, Words):
            font = ImageFont.load_default((TITLE_FONT if part.title else FONT) * fine)
            place = tuple(fine * side for side in part.point)
            ImageDraw.Draw(page).text(place, part.text, part.colour, font, ANCHORS[part.anchor])
        else:
            _stroke(page, part, fine)
    return page.resize((WIDTH * SCALE, HEIGHT * SCALE), Image.Resampling.BOX)


def write_pictures(
    folder: Path, pictures: Mapping[str, Chart | Image.Image], loggers: Iterable[Any] = (), update: int = 0
) -> None:
    """Write `report/<name>.png` of each picture under the folder, and add it to those loggers that are TensorBoard's.

    Raises UserError where the folder cannot be written.
    """
    opened = [getattr(logger, "experiment", None) for logger in loggers]
    boards = [board for board in opened if hasattr(board, "add_image")]
    for name, one in pictures.items():
        picture = draw(one) if isinstance(one, Chart) else one
        write_whole(folder / FOLDER / f"{name}.png", lambda place, picture=picture: picture.save(place, "PNG"))
        for board in boards:
            board.add_image(f"{FOLDER}/{name}", np.asarray(picture), update, dataformats="HWC")
    for board in boards:
        board.close()  # a logger that is used again opens a file of its own


def _stroke(page: Image.Image, part: Stroke, fine: int) -> None:
    points = [(fine * x, fine * y) for x, y in part.points]
    if part.filled:
        mask = Image.new("L", page.size, 0)
        ImageDraw.Draw(mask).polygon(points, fill=round(255 * BAND))
        page.paste(ImageColor.getrgb(part.colour), mask=mask)
        return
    width, pen = round(part.width * fine), ImageDraw.Draw(page)
    for piece in _dashes(points, fine) if part.dashed else [points]:
        pen.line(piece, part.colour, width, joint="curve")
    if len(points) == 1:  # a line of one point
        (x, y), reach = points[0], 2 * width
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), part.colour)


def _dashes(points: list[Point], fine: int) -> Iterator[list[Point]]:
    """The pieces of a straight line from the first of two points to the second."""
    (x, y), (to_x, to_y) = points
    length = math.hypot(to_x - x, to_y - y)

    def along(way: float) -> Point:
        share = min(way, length) / length
        return x + share * (to_x - x), y + share * (to_y - y)

    for start in range(0, round(length), (DASH + GAP) * fine):
        yield [along(start), along(start + DASH * fine)]
