"""From a picture to what CLIP's image encoder takes."""

import math
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from dvp.images import rgb, upright

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the pictures that CLIP was trained on, per RGB channel
STD = (0.26862954, 0.26130258, 0.27577711)
STRIP = 16  # short sides in a long one, from which on nearly all of an enlarged picture would be cropped away
REACH = 3  # pixels around a place that its bicubic value depends on when a picture is enlarged, and one more


def preprocess(image: Image.Image, size: int, turn: bool = False) -> Tensor:
    """The picture as a tensor (3, size, size): short side to `size` (bicubic), centre crop, CLIP's mean and std.

    turn: as its EXIF says that it is to be seen. Raises UserError for values of no known range.
    """
    # RGB comes first: a palette picture cannot be resized bicubically, and the published data code does the same.
    image = rgb(upright(image) if turn else image)
    if min(image.size) < size and max(image.size) > STRIP * min(image.size):
        image = _middle(image, size)
    else:
        image = F.center_crop(F.resize(image, size, InterpolationMode.BICUBIC), size)
    return F.normalize(F.to_tensor(image), MEAN, STD)


def middle_square(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the part that `preprocess` leaves of a picture, in its own pixels."""
    short, long = min(width, height), max(width, height)
    resized = int(size * long / short)  # as torchvision's resize has it
    start = int(round((resized - size) / 2)) * long / resized
    end = start + size * long / resized
    return (start, 0.0, end, short) if width > height else (0.0, start, short, end)


def describe_preprocess(size: int, turn: bool = False) -> str:
    """What decides the numbers that `preprocess` makes of a picture: part of the name of a cache of tokens."""
    return f"clip.preprocess 2, {size}" + (", turned" if turn else "")


def processor_config(size: int) -> dict[str, Any]:
    """What `preprocess` does, as the CLIPImageProcessor of transformers is told of it in preprocessor_config.json."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": Image.Resampling.BICUBIC.value,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }


def _middle(image: Image.Image, size: int) -> Image.Image:
    """What enlarging and cropping make of a strip, from the part of it that they need.

    A strip of 3000 x 1 pixels would take 450 MB when it is enlarged whole.
    """
    short, long = min(image.size), max(image.size)
    resized = int(size * long / short)  # length of the whole strip after torchvision's resize
    first = int(round((resized - size) / 2))  # where torchvision's crop begins in it
    scale = long / resized
    start = max(0, math.floor(first * scale) - REACH)
    end = min(long, math.ceil((first + size) * scale) + REACH)
    wide = image.width > image.height
    part = image.crop((start, 0, end, short) if wide else (0, start, short, end))
    a, b = first * scale - start, (first + size) * scale - start  # measured in the part: PIL takes 32-bit floats
    (left, right), (top, bottom) = ((a, b), (0, short)) if wide else ((0, short), (a, b))
    # Across, then down: PIL's order for what is enlarged, but not for a part of it that happens to shrink.
    part = part.resize((size, part.height), Image.Resampling.BICUBIC, (left, 0, right, part.height))
    return part.resize((size, size), Image.Resampling.BICUBIC, (0, top, size, bottom))
