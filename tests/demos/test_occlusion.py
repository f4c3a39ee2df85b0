"""What is covered is where the weights lie, and the three ways differ only in which patches they choose."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_world import picture

import dvp
from demos.occlusion import CHOOSE, changed, cover
from dvp.images import open_image


def test_a_patch_is_covered_where_it_was_seen() -> None:
    white = Image.new("RGB", (40, 20), "white")
    white.paste("black", (0, 0, 10, 20))
    covered = np.asarray(cover(white, [1, 2], 2, (10, 0, 30, 20)))[..., 0].astype(int)
    mean = covered[5, 25]
    assert 0 < mean < 255
    expected = np.asarray(white)[..., 0].astype(int)
    expected[:10, 20:30] = expected[10:, 10:20] = mean
    assert (covered == expected).all()


def test_the_ways_choose_the_largest_any_and_the_smallest() -> None:
    weights = torch.tensor([0.1, 0.5, 0.4])
    orders = {name: choose(weights, torch.Generator().manual_seed(0)).tolist() for name, choose in CHOOSE.items()}
    assert orders["looked at most"] == [1, 2, 0] and orders["looked at least"] == [0, 2, 1]
    assert sorted(orders["drawn"]) == [0, 1, 2]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_ways_cover_nothing_or_all_alike(share: float, checkpoint) -> None:
    model = dvp.load(checkpoint("dvp_adaption_bert_vqa"))
    pictures = [open_image(picture(number), "") for number in range(8)]
    found = changed(model, pictures, ["is there a red circle"] * 8, share)
    assert len(set(found.values())) == 1 and (share or not any(found.values()))
