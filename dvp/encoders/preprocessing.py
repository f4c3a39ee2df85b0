"""How pictures are made ready for an encoder, as data: read from a file beside its weights, or its family's way."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from dvp.errors import UserError

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # per RGB channel
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
Box = tuple[float, float, float, float]  # left, top, right and bottom


@dataclass(frozen=True)
class Preprocessing:
    """What becomes of a picture: a square of `size` pixels, then per channel less `mean` and by `std`.

    short_side: what the short side is resized to before the middle is cut out; None where the whole picture is squeezed
    to the square. resample: PIL's number of the filter.
    """

    size: int
    short_side: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = Image.Resampling.BICUBIC.value

    def at(self, size: int) -> "Preprocessing":
        """The same for squares of another size; as much of a picture is cut off."""
        edge = None if self.short_side is None else round(self.short_side * size / self.size)
        return replace(self, size=size, short_side=edge)

    def seen(self, width: int, height: int, patch: int = 1) -> Box:
        """Left, top, right and bottom of the part of a picture that is left, in the picture's own pixels.

        patch: side of the encoder's patches, of which it takes whole ones alone.
        """
        whole = self.size // patch * patch
        if self.short_side is None:
            return 0.0, 0.0, width * whole / self.size, height * whole / self.size
        short, long = min(width, height), max(width, height)
        resized = int(self.short_side * long / short)  # as torchvision's resize has it
        start, end = self._middle(long, resized, whole)
        low, high = self._middle(short, self.short_side, whole)
        return (start, low, end, high) if width > height else (low, start, high, end)

    def _middle(self, side: int, resized: int, whole: int) -> tuple[float, float]:
        """Where the crop, of which `whole` is seen, begins and ends on a side of so many pixels that is resized."""
        start = int(round((resized - self.size) / 2)) * side / resized  # as torchvision's crop has it
        return start, start + whole * side / resized

    def key(self, turn: bool = False) -> str:
        """What decides the numbers that become of a picture: part of the name of a cache of tokens."""
        if self == CLIP.at(self.size):
            name = f"clip.preprocess 2, {self.size}"  # there are caches of this name
        else:
            name = f"prepare 1, {self.size} of {self.short_side}, by {self.resample}, {self.mean}, {self.std}"
        return name + (", turned" if turn else "")

    def as_processor(self) -> dict[str, Any]:
        """The same as the CLIPImageProcessor of transformers is told of it in preprocessor_config.json."""
        square = {"height": self.size, "width": self.size}
        crops = self.short_side is not None
        return {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": self.short_side} if crops else square,
            "resample": self.resample,
            "do_center_crop": crops,
            **({"crop_size": square} if crops else {}),
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }


CLIP = Preprocessing(224, 224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def read_preprocessing(path: Path, content: dict[str, Any], usual: Preprocessing) -> Preprocessing:
    """What a preprocessor_config.json says; what it leaves out is as usual in the encoder's family.

    Raises UserError, with what it is, for what makes no squares of one size of all pictures.
    """
    content = {key: value for key, value in content.items() if value is not None}
    crops = bool(content.get("do_center_crop", usual.short_side is not None))
    size = content.get("size") or {"shortest_edge": usual.short_side, "height": usual.size, "width": usual.size}
    crop = _side(content.get("crop_size") or usual.size)
    edge = _count(size.get("shortest_edge") if isinstance(size, dict) else size) if crops else None
    side = None if edge else _side(size)  # a number is the short side before a crop, else the square's
    fits = edge >= crop if edge and crop else side is not None and (not crops or crop == side)
    resample, values = content.get("resample", usual.resample), _values(content, usual)
    faults = {
        f"size={size}, do_center_crop={crops}, crop_size={content.get('crop_size')}": not fits,
        "do_resize=False": content.get("do_resize") is False,
        "do_pad=True": content.get("do_pad") is True,
        f"resample={resample}": resample not in [one.value for one in Image.Resampling],
        "image_mean, image_std and rescale_factor are not all numbers above 0": values is None,
    }
    if fault := next((what for what, found in faults.items() if found), None):
        raise UserError(
            f"{path} does not make squares of one size of all pictures, in a way that is known here ({fault}): give "
            "it a size of shortest_edge with a crop_size that is not larger, or of height and width that are equal."
        )
    return Preprocessing(side or crop, edge, *values, resample)


def _count(value: Any) -> int | None:
    """A whole number above 0; None for anything else."""
    return value if type(value) is int and value > 0 else None


def _side(size: Any) -> int | None:
    """The side of a square, of a number or of height and width; None for anything else."""
    if not isinstance(size, dict):
        return _count(size)
    return _count(size.get("height")) if size.get("height") == size.get("width") else None


def _values(content: dict[str, Any], usual: Preprocessing) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std of values from 0 to 1, other factors of the file worked in; None where they are no numbers."""
    factor = content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1.0
    mean, std = content.get("image_mean") or usual.mean, content.get("image_std") or usual.std
    if not content.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    numbers = [factor, *mean, *std] if isinstance(mean, list | tuple) and isinstance(std, list | tuple) else []
    if len(numbers) != 7 or not all(isinstance(one, int | float) and math.isfinite(one) for one in numbers):
        return None
    if factor <= 0 or min(std) <= 0:
        return None
    scale = 1.0 if math.isclose(factor, 1 / 255) else 255 * factor
    return tuple(one / scale for one in mean), tuple(one / scale for one in std)
