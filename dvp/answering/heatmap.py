"""The compressor's attention over the image tokens, drawn over the picture: the mean of all heads, and each head."""

import math
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dvp.encoders.preprocessing import Box
from dvp.errors import UserError

PANEL = 224  # pixels of a panel's longer side
MARGIN, TITLE, WORDS = 8, 18, 150  # around panels, above each, and the width of a title
COLUMNS = 5
LONGEST = 4  # short sides that are shown of a strip, around what was seen of it
COLD, HOT = (255, 255, 0), (255, 0, 0)  # of half and of all of the largest weight; what has none keeps its own colour
FRAME = (0, 160, 255)  # around what the image encoder saw
OPAQUE = 0.75  # of the largest weight's colour


class Panel(NamedTuple):
    """The picture under the weights of one head, or of their mean, and what is to be said of them."""

    image: Image.Image
    title: str


def draw_panels(
    picture: Image.Image, attention: Tensor | None, seen: Box, prefix: int = 1, longer: int = PANEL
) -> list[Panel]:
    """The picture, then it under the mean of the weights (heads, N) of its image tokens, then under each head's.

    Each panel is scaled to its own largest weight, which its title tells; a frame marks what the encoder saw. seen:
    which part of the picture that is. prefix: how many tokens stand before the patches', the class token first. longer:
    pixels of a panel's longer side. Raises UserError where there are no weights of patches.
    """
    if attention is None or attention.shape[1] < prefix + 1 or attention.shape[1] < 2:
        raise UserError("There is no heat map: this checkpoint looked at no picture; leave heatmap out.")
    picture, box = _around(picture, seen)
    scale = longer / max(picture.size)
    shown = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BICUBIC)
    place = [round(edge * scale) for edge in box]
    maps = [("mean", attention.mean(0))]
    maps += [(f"head {number}", weights) for number, weights in enumerate(attention, start=1)]
    panels = [Panel(_panel(shown, None, place), "the picture")]
    for name, weights in maps:
        patches = weights[prefix:]
        title = f"{name}: {patches.max():.1%}"
        title += f", class {weights[0]:.0%}" if prefix else ""
        title += f", registers {weights[1:prefix].sum():.0%}" if prefix > 1 else ""
        panels.append(Panel(_panel(shown, patches, place), title))
    return panels


def draw_heatmap(
    picture: Image.Image, attention: Tensor | None, seen: Box, prefix: int = 1, longer: int = PANEL
) -> Image.Image:
    """One image of the panels of `draw_panels` under their titles; raises UserError as that does."""
    panels = draw_panels(picture, attention, seen, prefix, longer)
    columns, shown = min(COLUMNS, len(panels)), panels[0].image
    width, height = max(shown.width, WORDS) + MARGIN, shown.height + TITLE + MARGIN
    rows = math.ceil(len(panels) / columns)
    page = Image.new("RGB", (MARGIN + columns * width, MARGIN + rows * height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for number, (panel, title) in enumerate(panels):
        left = MARGIN + number % columns * width
        top = MARGIN + number // columns * height
        pen.text((left, top), title, "black", font)
        page.paste(panel, (left, top + TITLE))
    return page


def _panel(shown: Image.Image, patches: Tensor | None, place: list[int]) -> Image.Image:
    """The picture with the weights of its patches over it, nearest, as they are, and the frame."""
    panel = shown.copy()
    left, top, right, bottom = place
    if patches is not None:
        side = math.isqrt(len(patches))
        levels = (255 * patches / patches.max()).round().byte().reshape(side, side)
        small = Image.fromarray(levels.numpy(), "L")
        heat = small.resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.NEAREST)
        colour = Image.merge("RGB", [heat.point(_ramp(low, high)) for low, high in zip(COLD, HOT, strict=True)])
        panel.paste(colour, (left, top), heat.point(lambda level: int(level * OPAQUE)))
    edges = (left, top, max(left, right - 1), max(top, bottom - 1))
    ImageDraw.Draw(panel).rectangle(edges, outline=FRAME, width=2)
    return panel


def _ramp(low: int, high: int) -> list[int]:
    """The value of one colour channel by level, 0 to 255: `low` up to half, then towards `high`."""
    return [round(low + (high - low) * max(0.0, level / 127.5 - 1)) for level in range(256)]


def _around(picture: Image.Image, box: Box) -> tuple[Image.Image, Box]:
    """The picture and the box in it; of a strip the part of it around the box."""
    short = min(picture.size)
    if max(picture.size) <= LONGEST * short:
        return picture, box
    reach = max(1, math.ceil(LONGEST * short / 2))
    middle = (round((box[0] + box[2]) / 2), round((box[1] + box[3]) / 2))
    left, top = (max(0, centre - reach) for centre in middle)
    right, bottom = (min(side, centre + reach) for side, centre in zip(picture.size, middle, strict=True))
    return picture.crop((left, top, right, bottom)), (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
