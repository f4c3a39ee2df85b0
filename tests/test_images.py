"""Whatever a picture is stored as, it is RGB as a person sees it, or refused in a sentence."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dvp.encoders import CLIP
from dvp.encoders.transform import prepare
from dvp.errors import UserError
from dvp.images import TURNS, open_image, rgb, traits, upright

RAMP = np.tile(np.arange(256, dtype=np.uint8), (64, 1))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


DEEP = {
    "16-bit PNG": encoded(Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"),
    "16-bit TIFF": encoded(Image.fromarray(RAMP.astype(np.uint16) * 257), "TIFF"),
    "big-endian": encoded(Image.frombytes("I;16B", (256, 64), (RAMP.astype(">u2") * 257).tobytes()), "TIFF"),
    "32-bit": encoded(Image.fromarray(RAMP.astype(np.int32) * 257), "TIFF"),
    "8 of 32 bits": encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
    "float to 1": encoded(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"),
    "float to 255": encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "PGM": b"P5 256 64 65535\n" + (RAMP.astype(">u2") * 257).tobytes(),
}


@pytest.mark.parametrize("kind", DEEP)
def test_values_of_more_than_8_bits_are_scaled(kind: str) -> None:
    assert np.array_equal(open_image(DEEP[kind], "here"), np.stack([RAMP] * 3, axis=2))
    assert traits(DEEP[kind], "here") == ["deep"]
    with Image.open(io.BytesIO(DEEP[kind])) as image:
        assert prepare(image, CLIP.at(60)).equal(prepare(Image.fromarray(RAMP), CLIP.at(60)))


@pytest.mark.parametrize("values", [RAMP.astype(np.int32) - 5, RAMP.astype(np.int32) * 999, RAMP * np.float32(np.nan)])
def test_values_of_no_known_range_are_refused(values: np.ndarray) -> None:
    for read in (open_image, traits):
        with pytest.raises(UserError, match="The picture in row 3 is refused: its values go from"):
            read(encoded(Image.fromarray(values), "TIFF"), "in row 3")


BLACK_HALF_SEEN = np.zeros((4, 4, 4), np.uint8) + np.array([0, 0, 0, 51], np.uint8)


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (encoded(Image.new("RGBA", (4, 4)), "PNG"), 255),
        (encoded(Image.new("LA", (4, 4)), "PNG"), 255),
        (encoded(Image.fromarray(BLACK_HALF_SEEN), "PNG"), 204),
        (encoded(Image.new("RGBA", (4, 4)), "WEBP"), 255),
        (encoded(Image.new("L", (4, 4)), "GIF", transparency=0), 255),
        (encoded(Image.new("P", (4, 4)), "PNG", transparency=0), 255),
        (encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), 255),
    ],
)
def test_what_is_transparent_gets_white_behind_it(data: bytes, colour: int) -> None:
    assert np.array_equal(open_image(data, "here"), np.full((4, 4, 3), colour))
    assert traits(data, "here") == ["transparent"]


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "RGBA", "LA"])
def test_what_is_opaque_is_as_pil_makes_it_rgb(mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).convert(mode)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    assert np.array_equal(open_image(data, "here"), image.convert("RGB"))
    assert traits(data, "here") == []
    assert rgb(opened := open_image(data, "here")) is opened


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("kind, mode", [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "L")])
def test_exif_tells_how_a_picture_lies(turn: int, kind: str, mode: str) -> None:
    image = Image.fromarray(np.add.outer(range(64), range(90)).astype(np.uint8)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(RAMP[:, :90]))
    exif = image.getexif()
    exif[0x0112] = turn
    data = encoded(image, kind, exif=exif)
    lying = open_image(data, "here")
    standing = upright(lying)
    assert lying.size == (90, 64) and standing.size == ((64, 90) if turn >= 5 else (90, 64))
    assert np.array_equal(standing, lying.transpose(TURNS[turn]))
    assert "turned" in traits(data, "here")
    assert prepare(lying, CLIP.at(60), turn=True).equal(prepare(standing, CLIP.at(60)))
    assert not prepare(lying, CLIP.at(60)).equal(prepare(standing, CLIP.at(60)))
    assert CLIP.at(60).key(True) != CLIP.at(60).key()


def test_a_sound_picture_with_damaged_exif_is_sound() -> None:
    data = encoded(Image.new("RGB", (9, 9)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff")
    assert traits(data, "here") == [] and upright(open_image(data, "here")).size == (9, 9)


def test_a_png_with_much_text_or_a_large_profile_is_read() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 2**21, zip=True)
    for options in ({"pnginfo": text}, {"icc_profile": bytes(3 * 2**20)}):
        assert open_image(encoded(Image.new("RGB", (3, 3)), "PNG", **options), "here").size == (3, 3)
    text.add_text("bomb", "x" * 2**27, zip=True)
    with pytest.raises(UserError, match="here is truncated or no picture .*TEXT"):
        open_image(encoded(Image.new("RGB", (3, 3)), "PNG", pnginfo=text), "here")


AVIF = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)), "AVIF")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (None, "is empty"),
        (b"", "is empty"),
        (b"<html>", "is truncated or no picture .of no known format"),
        (encoded(Image.fromarray(RAMP), "PNG")[:-40], "is truncated or no picture"),
        (encoded(Image.fromarray(RAMP), "JPEG")[:-40], "is truncated or no picture"),
        (encoded(Image.fromarray(RAMP), "TIFF")[:-40], "is truncated or no picture"),
        (AVIF[:-2000], "is truncated or no picture"),
        (AVIF[:290] + bytes(60) + AVIF[350:], "is truncated or no picture .Failed to decode"),  # a RuntimeError
    ],
)
def test_what_does_not_decode_is_one_sentence(data: bytes | None, what: str) -> None:
    for read in (open_image, traits):
        with pytest.raises(UserError, match=f"^The picture in row 3 {what}") as caught:
            read(data, "in row 3")
        assert "\n" not in str(caught.value) and "0x" not in str(caught.value)


def test_a_picture_of_too_many_pixels_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (300, 200, 100):  # PIL warns from there on and raises at twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        data = encoded(Image.new("L", (20, 20)), "PNG")
        with pytest.raises(UserError, match=f"too large: it has over {limit} pixels"):
            open_image(data, "here")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux tells them")
def test_a_picture_is_decoded_without_threads_which_a_fork_would_leave_behind() -> None:
    before = set(Path("/proc/self/task").iterdir())
    with Image.open(io.BytesIO(AVIF)) as image:  # as the modules of dvp leave PIL
        image.load()
        assert set(Path("/proc/self/task").iterdir()) <= before


def test_an_error_from_a_process_that_loads_data_is_its_sentence() -> None:
    from torch.utils.data import DataLoader

    with pytest.raises(UserError) as caught:
        list(DataLoader([0, 1], 1, num_workers=1, collate_fn=lambda rows: open_image(b"", f"in row {rows[0]}")))
    assert str(caught.value).startswith("The picture in row 0 is empty") and "\n" not in str(caught.value)
