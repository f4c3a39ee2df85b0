"""From a picture to the pixels that an image encoder takes."""

import math

from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from dvp.encoders.preprocessing import Preprocessing
from dvp.images import rgb, upright

STRIP = 16  # short sides in a long one, from which on nearly all of an enlarged picture would be cropped away
REACH = 3  # pixels around a place that its bicubic value depends on when a picture is enlarged, and one more


def prepare(image: Image.Image, how: Preprocessing, turn: bool = False) -> Tensor:
    """The picture as a tensor (3, size, size): resized, its middle cut out or squeezed whole, per channel normalised.

    turn: as its EXIF says that it is to be seen. Raises UserError for values of no known range.
    """
    # RGB comes first: a palette picture cannot be resized bicubically, and the published data code does the same.
    image = rgb(upright(image) if turn else image)
    if how.short_side is None:
        image = image.resize((how.size, how.size), how.resample)
    elif min(image.size) < how.short_side and max(image.size) > STRIP * min(image.size):
        image = _middle(image, how)
    else:
        image = F.center_crop(F.resize(image, how.short_side, MODES[how.resample]), how.size)
    return F.normalize(F.to_tensor(image), how.mean, how.std)


MODES = {one.value: InterpolationMode(one.name.lower()) for one in Image.Resampling}


def _middle(image: Image.Image, how: Preprocessing) -> Image.Image:
    """What enlarging and cropping make of a strip, from the part of it that they need.

    A strip of 3000 x 1 pixels would take 450 MB when it is enlarged whole.
    """
    left, top, right, bottom = how.seen(*image.size)
    wide = image.width > image.height
    first, last = (left, right) if wide else (top, bottom)
    start, end = max(0, math.floor(first) - REACH), min(max(image.size), math.ceil(last) + REACH)
    part = image.crop((start, 0, end, image.height) if wide else (0, start, image.width, end))
    # Measured in the part: PIL takes 32-bit floats.
    box = (left - start, top, right - start, bottom) if wide else (left, top - start, right, bottom - start)
    # Across, then down: PIL's order for what is enlarged, but not for a part of it that happens to shrink.
    part = part.resize((how.size, part.height), how.resample, (box[0], 0, box[2], part.height))
    return part.resize((how.size, how.size), how.resample, (0, box[1], how.size, box[3]))
