"""How the bytes of a picture become an RGB image: one way for conversion, training, kept tokens and every task."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError, features

from dvp.errors import UserError

# A sound PNG may bring a text or a colour profile of megabytes. PIL's own limits (1 and 64 MiB unpacked) guard against
# chunks that unpack to gigabytes; these do so too.
PngImagePlugin.MAX_TEXT_CHUNK = 64 * 2**20
PngImagePlugin.MAX_TEXT_MEMORY = 256 * 2**20

if features.check("avif"):
    from PIL import AvifImagePlugin

    # A decoder with threads that is left when a process forks to load data makes the new one wait for them for ever.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1

MOST_BYTES = 100 * 10**6  # of the file of a picture that is asked about
BEHIND = "white"  # put behind what is transparent: drawings mostly are dark lines
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # PIL cuts their values off at 255 where it makes them RGB
RANGES = {"F": (1, 255, 65535)}  # the values end at the first that none exceeds
INTEGER_RANGES = (255, 65535)
ORIENTATION = 0x0112  # in EXIF; 1: upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TRAITS = {  # what a conversion says of a picture, behind the number of such pictures
    "transparent": f"with transparent parts: {BEHIND} is put behind them",
    "deep": "of more than 8 bits a value: scaled to 8 by the range that they use (1, 255 or 65535)",
    "turned": "that lie on their side or mirrored, says their EXIF: turn_pictures=True turns them where they are used",
}


def read_file(path: Any) -> bytes:
    """The bytes of a picture's file; raises UserError for what is no path, cannot be read, or is too large."""
    if not isinstance(path, str | Path) or str(path) in ("", "."):
        raise UserError(f"The picture {path!r} is none: give a path, bytes or an image of PIL's.")
    try:
        require_small(Path(path).expanduser().stat().st_size, str(path))
        return Path(path).expanduser().read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"The picture {path} cannot be read ({reason}): give the path of one that is there.") from None


def require_small(size: int, where: str) -> None:
    """Raise UserError where the file of a picture has more bytes than are read."""
    if size > MOST_BYTES:
        raise UserError(
            f"The picture {where} is too large: it has {size / 1e6:,.0f} MB, over {MOST_BYTES / 1e6:.0f}; take a "
            "smaller."
        )


def open_image(data: bytes | None, where: str) -> Image.Image:
    """The RGB image in these bytes; its EXIF still tells how it lies.

    `where` goes into the sentence of the UserError that is raised when they are empty, truncated, no picture, or one of
    more pixels than PIL thinks safe.
    """
    with _opened(data, where) as image:
        return _whole(image)


def take_image(image: Image.Image, where: str) -> Image.Image:
    """The same of an image that PIL has opened; raises UserError where it does not decode."""
    with _refusing(where):
        return _whole(image)


def is_animated(data: bytes | None, where: str) -> bool:
    """Whether the picture in these bytes has more frames than the first; raises UserError as `open_image` does."""
    with _opened(data, where) as image:
        return getattr(image, "is_animated", False)


def traits(data: bytes | None, where: str) -> list[str]:
    """Those of TRAITS that the picture in these bytes has; raises the UserError that `open_image` would.

    A header check would miss truncation, so the whole picture is decoded; a JPEG at an eighth of its size, which spares
    most of the inverse transform and the colour conversion.
    """
    with _opened(data, where) as image:
        image.draft(None, (1, 1))
        rgb(image).load()
        found = {"transparent": _see_through(image), "deep": image.mode in DEEP, "turned": _orientation(image) != 1}
        return [name for name, holds in found.items() if holds]


def rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, itself where it is. Raises UserError for values of no known range.

    Values of more than 8 bits are scaled; what is transparent gets BEHIND behind it.
    """
    if image.mode in DEEP:
        return _scaled(image).convert("RGB")
    if _see_through(image):
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, BEHIND), above).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF says that it is to be seen."""
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _whole(image: Image.Image) -> Image.Image:
    picture = rgb(image)
    picture.load()
    if picture is not image and (turn := _orientation(image)) != 1:
        picture.getexif()[ORIENTATION] = turn  # making it RGB may have lost it
    return picture


@contextmanager
def _opened(data: bytes | None, where: str) -> Iterator[Image.Image]:
    if not data:
        raise UserError(f"The picture {where} is empty: put a picture there, or leave the row out.")
    with _refusing(where), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data)) as image:
            yield image


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    try:
        yield
    except UserError as refusal:
        raise UserError(f"The picture {where} is refused: {refusal}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(
            f"The picture {where} is too large: it has over {Image.MAX_IMAGE_PIXELS:,} pixels; replace it by a smaller."
        ) from None
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, AVIF's RuntimeError
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known format" if unknown else str(error).split("\n")[0]
        raise UserError(f"The picture {where} is truncated or no picture ({reason}): replace it.") from None


def _see_through(image: Image.Image) -> bool:
    return image.has_transparency_data and image.mode not in DEEP and image.convert("RGBA").getextrema()[3][0] < 255


def _scaled(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    low, high = values.min(), values.max()
    top = next((top for top in RANGES.get(image.mode, INTEGER_RANGES) if 0 <= low and high <= top), None)
    if top is None:  # not a number, too
        raise UserError(f"its values go from {low:g} to {high:g}, not from 0 to 1, 255 or 65535: save it with 8 bits.")
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    try:
        turn = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a picture may be sound where its EXIF is not, and PIL's parser raises anything
        return 1
    return turn if turn in TURNS else 1
