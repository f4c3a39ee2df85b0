"""How pictures are made ready: read from the file of a folder, and as its own image processor does it."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_encoders import FILES, SIGLIP2
from torch import Tensor
from transformers import AutoImageProcessor

from dvp.encoders import CLIP, ENCODERS, Encoder, Preprocessing
from dvp.encoders.preprocessing import read_preprocessing
from dvp.encoders.transform import STRIP, prepare
from dvp.errors import UserError
from dvp.files import write_json
from dvp.scienceqa.data import SQUEEZED

# Where as many pixels are cut off on either side. Of an odd number transformers leaves one more behind, torchvision, by
# which CLIP and DINOv2 were trained and by which we cut, rounds to even.
SIZES = [(30, 47), (60, 40), (33, 33), (300, 9), (7, 203)]
ALL = {row.name: row.prepared for row in ENCODERS.values()} | {"ScienceQA": SQUEEZED}
_HALF, _IMAGENET = ((0.5,) * 3, (0.5,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
READ: dict[str, tuple[dict[str, Any], Preprocessing, Encoder]] = {
    "CLIP": (FILES["clip_vision_model"], CLIP.at(32), ENCODERS["clip_vision_model"]),
    "SigLIP": (FILES["siglip_vision_model"], Preprocessing(30, None, *_HALF, 3), ENCODERS["siglip_vision_model"]),
    "SigLIP 2": (SIGLIP2, Preprocessing(30, None, *_HALF, 2), ENCODERS["siglip_vision_model"]),
    "DINOv2": (FILES["dinov2"], Preprocessing(28, 32, *_IMAGENET), ENCODERS["dinov2"]),
    "DINOv3": (FILES["dinov3_vit"], Preprocessing(32, None, *_IMAGENET, 2), ENCODERS["dinov3_vit"]),
}
BACKENDS = [(name, backend) for name in READ for backend in ("pil", "torchvision")]
BACKENDS.remove(("DINOv3", "pil"))  # which transformers has not


def noise(size: tuple[int, int]) -> Image.Image:
    """A random picture, the same at every call."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def require_close(ours: Tensor, theirs: Tensor, how: Preprocessing, size: tuple[int, int], pil: bool) -> None:
    """Pixels are equal, or as two ways of resizing have them: of 255 levels rarely one, and two at most, apart."""
    off = 255 * (ours - theirs).abs() * torch.tensor(how.std)[:, None, None]
    exact = pil and max(size) <= STRIP * min(size)  # a strip is resized where it is seen
    assert off.max() < (0.01 if exact else 2.5) and (off > 1.2).float().mean() < 0.01


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name, backend", BACKENDS)
def test_a_public_file_is_read_as_transformers_reads_it(name: str, backend: str, size: Any, tmp_path: Path) -> None:
    content, expected, row = READ[name]
    write_json(tmp_path / "preprocessor_config.json", content)
    how = read_preprocessing(tmp_path, content, row.prepared)
    assert how == expected
    processor = AutoImageProcessor.from_pretrained(tmp_path, use_fast=backend == "torchvision")
    theirs = processor(noise(size), return_tensors="pt")["pixel_values"][0]
    require_close(prepare(noise(size), how), theirs, how, size, pil=backend == "pil")


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("how", ALL.values(), ids=ALL)
def test_image_processors_read_what_is_written_and_do_the_same(how: Preprocessing, size: Any, tmp_path: Path) -> None:
    how = how.at(40)
    write_json(tmp_path / "preprocessor_config.json", how.as_processor())
    processor = AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    theirs = processor(noise(size), return_tensors="pt")["pixel_values"][0]
    require_close(prepare(noise(size), how), theirs, how, size, pil=True)
    assert read_preprocessing(tmp_path, how.as_processor(), CLIP) == how


def test_what_a_file_leaves_out_is_as_usual_in_the_family() -> None:
    for row in ENCODERS.values():
        assert read_preprocessing(Path(), {}, row.prepared) == row.prepared


def test_another_factor_and_no_mean_are_worked_in() -> None:
    picture, plain = noise((40, 40)), {"do_normalize": False, "size": {"height": 40, "width": 40}}
    how = read_preprocessing(Path(), plain | {"rescale_factor": 1 / 127.5, "do_center_crop": False}, CLIP)
    levels = torch.tensor(np.asarray(picture)).permute(2, 0, 1)
    torch.testing.assert_close(prepare(picture, how), levels / 127.5)
    how = read_preprocessing(Path(), plain | {"do_rescale": False, "do_center_crop": False}, CLIP)
    torch.testing.assert_close(prepare(picture, how), levels.float())


@pytest.mark.parametrize(
    "content, told",
    [
        ({"size": {"shortest_edge": 32}, "do_center_crop": False}, "do_center_crop=False"),
        ({"size": {"height": 32, "width": 48}, "do_center_crop": False}, "'width': 48"),
        ({"size": {"longest_edge": 32}}, "longest_edge"),
        ({"size": {"height": 64, "width": 64}, "crop_size": 32}, "crop_size=32"),
        ({"size": 32, "crop_size": 48}, "crop_size=48"),
        ({"size": 32, "crop_size": {"height": 16, "width": 32}}, "'width': 32"),
        ({"size": "large"}, "size=large"),
        ({"size": 32, "crop_size": [32]}, r"crop_size=\[32\]"),
        ({"do_resize": False}, "do_resize=False"),
        ({"do_pad": True}, "do_pad=True"),
        ({"resample": 9}, "resample=9"),
        ({"image_mean": [0.5]}, "image_mean, image_std"),
        ({"image_std": [0.5, 0.5, 0]}, "image_mean, image_std"),
        ({"image_std": [0.5, 0.5, "x"]}, "image_mean, image_std"),
        ({"image_mean": 0.5}, "image_mean, image_std"),
        ({"rescale_factor": 0}, "image_mean, image_std"),
    ],
)
def test_what_makes_no_squares_of_one_size_is_refused(content: dict, told: str) -> None:
    with pytest.raises(UserError, match=rf"config.json does not make squares .*{told}.*: give it a size of"):
        read_preprocessing(Path("config.json"), content, CLIP)


def test_a_key_tells_what_the_numbers_depend_on_and_clips_are_those_of_before() -> None:
    assert CLIP.key() == "clip.preprocess 2, 224" and CLIP.at(60).key(turn=True) == "clip.preprocess 2, 60, turned"
    own = Preprocessing(32, 36, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 2)
    changes = {"size": 30, "short_side": None, "mean": (0.1, 0.2, 0.4), "std": (0.4, 0.5, 0.7), "resample": 3}
    every = [own, *(replace(own, **{name: value}) for name, value in changes.items()), CLIP, SQUEEZED]
    keys = [how.key(turn) for how, turn in itertools.product(every, (False, True))]
    assert len(set(keys)) == len(keys)


def test_of_a_side_that_no_whole_patches_fill_the_rest_is_not_seen() -> None:
    assert ENCODERS["siglip_vision_model"].prepared.at(384).seen(384, 768, patch=14) == (0, 0, 378, 756)
    assert CLIP.at(30).seen(60, 100, patch=8) == (0, 20, 48, 68)


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (61, 61), (7, 5)], ids=str)
@pytest.mark.parametrize("how", ALL.values(), ids=ALL)
def test_what_was_seen_decides_the_pixels_and_nothing_else_does(how: Preprocessing, size: Any) -> None:
    how = how.at(32)
    left, top, right, bottom = (round(edge) for edge in how.seen(*size))
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    inside = np.zeros(size[::-1], np.uint8)
    inside[top:bottom, left:right] = 255
    seen, blank = (prepare(Image.fromarray(pixels), how)[:, 5:-5, 5:-5] for pixels in (inside, 0 * inside))
    white = prepare(Image.fromarray(0 * inside + 255), how)[:, 5:-5, 5:-5]
    assert (seen - white).abs().max() < (white - blank).abs().max() / 4
