"""The names that users have for the image encoder."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_world import write_clip
from torchvision import transforms
from torchvision.transforms import InterpolationMode

import clip
from dvp.encoders.loading import load_encoder

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.mark.parametrize("size", [(224, 224), (640, 480), (37, 500)])
@pytest.mark.parametrize("side", [224, 60])
def test_preprocess_is_clips_own(size: tuple[int, int], side: int) -> None:
    image = Image.effect_mandelbrot(size, (-3, -2.5, 2, 2.5), 50).convert("RGB")
    own = transforms.Compose(
        [
            transforms.Resize(side, interpolation=InterpolationMode.BICUBIC),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    assert torch.equal(clip.preprocess(image, side), own(image))


def test_load_takes_a_folder(tmp_path: Path) -> None:
    write_clip(tmp_path)
    model, own = clip.load(str(tmp_path)), load_encoder(str(tmp_path))
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), own.parameters(), strict=True))
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
