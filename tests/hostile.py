"""How many cases the property tests make, what a refusal is, and odd pictures."""

import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from PIL import Image

from dvp.errors import UserError

# The same cases in every run of the tests; HYPOTHESIS_CASES=<factor> makes so many times as many, others each time.
FACTOR = int(os.environ.get("HYPOTHESIS_CASES", "0"))


def cases(count: int) -> settings:
    """Settings of a property test of so many cases."""
    return settings(
        max_examples=count * max(1, FACTOR), derandomize=not FACTOR, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def taken_or_refused(call: Callable[[], Any], names: str = "") -> Any:
    """What `call` returns, or None where it raises a UserError of one sentence that names the file and a remedy."""
    try:
        return call()
    except UserError as refusal:
        said = str(refusal)
        assert "\n" not in said and (": " in said or "`" in said) and names in said, said
        return None


MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "LA", "I", "F", "I;16", "PA", "RGBX"]
FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA"]
SHARES = st.floats(0, 1, exclude_max=True)


@st.composite
def sound_pictures(draw: Callable[..., Any]) -> tuple[bytes, tuple[int, int]]:
    """The bytes of a picture of any mode, size and format, and its size."""
    mode, kind = draw(st.sampled_from(MODES)), draw(st.sampled_from(FORMATS))
    size, seed = draw(st.tuples(st.integers(1, 40), st.integers(1, 40))), draw(st.integers(0, 9))
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    try:
        image = Image.fromarray(pixels).convert("L" if mode in ("LA", "PA", "I", "F", "I;16") else "RGB").convert(mode)
        image.save(buffer := io.BytesIO(), kind)
    except (ValueError, OSError, KeyError):  # a format has not all modes
        assume(False)
    return buffer.getvalue(), size


@st.composite
def pictures(draw: Callable[..., Any]) -> bytes:
    """The bytes of such a picture, whole, cut off or with a byte turned round."""
    data, _ = draw(sound_pictures())
    way, place = draw(st.sampled_from(["whole", "cut", "flip"])), int(draw(SHARES) * len(data))
    if way == "flip":
        return data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]
    return data if way == "whole" else data[:place]


PICTURES = pictures()
