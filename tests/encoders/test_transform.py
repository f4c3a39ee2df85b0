"""What `prepare` makes of pictures for CLIP equals CLIP's own evaluation transform."""

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision import transforms

from dvp.encoders import CLIP
from dvp.encoders.transform import prepare

SIZES = [(224, 224), (640, 480), (480, 641), (37, 500), (100, 99)]


def noise(mode: str, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [224, 60])
def test_equals_open_clips_and_torchvisions_transform(size, side):
    image = noise("RGB", size)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    plain = transforms.Compose(
        [
            transforms.Resize(side, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    ours = prepare(image, CLIP.at(side))
    assert ours.shape == (3, side, side)
    assert torch.equal(ours, plain(image))
    assert torch.equal(ours, image_transform(side, is_train=False, mean=mean, std=std)(image))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "LA", "I;16"])
def test_every_picture_mode_is_made_rgb_before_it_is_resized(mode):
    image = (
        noise("L", (90, 70)).convert("I").convert("I;16") if mode == "I;16" else noise("RGB", (90, 70)).convert(mode)
    )
    assert torch.equal(prepare(image, CLIP.at(64)), prepare(image.convert("RGB"), CLIP.at(64)))


def test_one_colour_stays_that_colour():
    red = prepare(Image.new("RGB", (50, 80), (255, 0, 128)), CLIP.at(32))
    expected = [(1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258, (128 / 255 - 0.40821073) / 0.27577711]
    torch.testing.assert_close(red, torch.tensor(expected)[:, None, None].expand(3, 32, 32))


def plain(image, side):
    return transforms.functional.center_crop(
        transforms.functional.resize(image, side, transforms.InterpolationMode.BICUBIC), side
    )


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (999, 4), (7, 600), (14, 235), (30, 600), (900, 33)])
@pytest.mark.parametrize("side", [224, 60])
def test_a_strip_is_resized_where_it_is_seen_and_comes_out_the_same(size, side):
    image = noise("RGB", size)
    expected = torch.tensor(np.asarray(plain(image, side)), dtype=torch.int).permute(2, 0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP.mean, CLIP.std))
    found = ((prepare(image, CLIP.at(side)) * std + mean) * 255).round().int()
    off = (found - expected).abs()
    assert off.max() <= 1 and (off > 0).float().mean() < 0.01  # PIL takes the edges of a part as 32-bit floats
    if side % min(size) == 0:
        assert not off.any()


def test_a_strip_costs_no_more_than_a_square(monkeypatch):
    made = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *args: (made.append(size), resize(self, size, *args))[1]
    )
    prepare(Image.new("RGB", (20000, 1)), CLIP.at(224))
    assert max(width * height for width, height in made) == 224 * 224
