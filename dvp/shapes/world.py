"""The embedded world: pictures of coloured shapes on a 3x3 grid, and their captions.

A scene holds four to six shapes, too many for one fixed vector to say what is where. Scenes belong to a split by their
content, so no seed can put one scene into two splits.
"""

import random
import zlib
from typing import NamedTuple

import numpy as np

COLORS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 80, 200),
    "yellow": (240, 220, 40),
    "purple": (140, 60, 180),
    "orange": (250, 140, 20),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
PLACES = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
CELL = 20  # pixels
SIZE = 3 * CELL
_SHARES = ("pretrain",) * 4 + ("train",) * 2 + ("val", "test")  # eighths of all possible scenes


class Thing(NamedTuple):
    """One coloured shape; place is an index into PLACES, row by row."""

    place: int
    color: str
    shape: str

    @property
    def name(self) -> str:
        """Such as "red circle"."""
        return f"{self.color} {self.shape}"


Scene = tuple[Thing, ...]  # in order of place, one thing at most in each

# Which pixels of a cell a shape covers: from the distances to its centre, in units of its radius.
SHAPES = {
    "circle": lambda x, y: x * x + y * y < 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.85,
    "triangle": lambda x, y: (y < 0.8) & (y > 2 * abs(x) - 1),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
    "diamond": lambda x, y: abs(x) + abs(y) < 1.05,
    "ring": lambda x, y: (x * x + y * y < 1) & (x * x + y * y > 0.35),
}


def split_of(scene: Scene) -> str:
    """The only split that this scene may appear in: pretrain, train, val or test."""
    return _SHARES[zlib.crc32(repr([tuple(thing) for thing in scene]).encode()) % len(_SHARES)]


def scenes(split: str, count: int, seed: int = 0, sizes: tuple[int, ...] = (4, 5, 6)) -> list[Scene]:
    """`count` different scenes of the split, each with one of `sizes` things."""
    rng = random.Random(f"{split} {seed}")
    found: dict[Scene, None] = {}  # a set that keeps the order
    while len(found) < count:
        places = sorted(rng.sample(range(len(PLACES)), rng.choice(sizes)))
        scene = tuple(Thing(place, rng.choice(list(COLORS)), rng.choice(list(SHAPES))) for place in places)
        if split_of(scene) == split:
            found[scene] = None
    return list(found)


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The picture of a scene, (60, 60, 3) uint8: grey noise behind shapes that `rng` shifts and scales a little."""
    picture = rng.integers(112, 144, (SIZE, SIZE, 1)).repeat(3, axis=2)
    y, x = np.mgrid[0.5:CELL, 0.5:CELL] - CELL / 2  # pixels from the middle of a cell
    for thing in scene:
        radius, (right, down) = rng.uniform(6.5, 8.5), rng.uniform(-1.5, 1.5, 2)
        row, column = divmod(thing.place, 3)
        cell = picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        cell[SHAPES[thing.shape]((x - right) / radius, (y - down) / radius)] = COLORS[thing.color]
    return picture.astype(np.uint8)


def caption(scene: Scene, rng: random.Random) -> str:
    """What is where, in any order: "top left red circle, middle center blue ring"."""
    phrases = [f"{PLACES[thing.place]} {thing.name}" for thing in scene]
    return ", ".join(rng.sample(phrases, len(phrases)))
