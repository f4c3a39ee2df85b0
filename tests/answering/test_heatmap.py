"""The heat map shows the weights that were used, where they lie in the picture."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_world import NAMED_FAMILIES, picture

import dvp
from dvp.answering.heatmap import FRAME, HOT, MARGIN, PANEL, TITLE, WORDS, draw_heatmap
from dvp.encoders import CLIP
from dvp.encoders.transform import prepare
from dvp.errors import UserError


@pytest.mark.parametrize("family", NAMED_FAMILIES)
def test_the_weights_are_those_of_queries_and_keys_in_the_pass_that_answered(family: str, checkpoint) -> None:
    model = dvp.load(checkpoint(f"dvp_adaption_{family}_vqa"))
    compressor, seen = model.model.compressors[0], []
    hook = compressor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    answers = model.answer([picture(1), picture(2)], "is there a red circle", attention=True)
    hook.remove()
    ((query, tokens),) = seen  # one pass
    q = compressor.query(query).unflatten(-1, (4, -1)).transpose(1, 2)  # (B, heads, 1, W / heads)
    k = compressor.key(tokens).unflatten(-1, (4, -1)).transpose(1, 2)  # (B, heads, N, W / heads)
    expected = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)[:, :, 0]
    weights = torch.stack([answer.attention for answer in answers])
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(weights[0], weights[1])
    assert answers == model.answer([picture(1), picture(2)], "is there a red circle")


def test_it_costs_nothing_when_it_is_not_asked_for(checkpoint) -> None:
    model = dvp.load(checkpoint("dvp_adaption_bert_vqa"))
    answer = model.answer(picture(1), "is there a red circle")
    assert answer.attention is None
    assert not model.model.compressors[0].attention._forward_hooks
    model.answer(picture(1), "is there a red circle", attention=True)
    assert not model.model.compressors[0].attention._forward_hooks


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (61, 61), (1, 1), (300, 7), (7, 5)])
def test_the_frame_lies_where_the_encoder_looked(size: tuple[int, int]) -> None:
    """A picture that is white there and black elsewhere is seen white."""
    left, top, right, bottom = CLIP.at(16).seen(*size)
    assert 0 <= left <= right <= size[0] + 1e-6 and 0 <= top <= bottom <= size[1] + 1e-6
    assert right - left == pytest.approx(min(size), rel=0.1) and bottom - top == pytest.approx(min(size), rel=0.1)
    inside = np.zeros(size[::-1], np.uint8)
    inside[round(top) : round(bottom), round(left) : round(right)] = 255
    outside = prepare(Image.fromarray(255 - inside), CLIP.at(16))
    seen = prepare(Image.fromarray(inside), CLIP.at(16))
    assert (seen[:, 1:-1, 1:-1] > outside[:, 1:-1, 1:-1]).all()


def test_the_largest_weight_is_hot_and_the_crop_is_framed() -> None:
    weights = torch.full((2, 5), 0.1)
    weights[0, 3] = weights[1, 1] = 0.6  # behind the class token: bottom left, top left
    page = np.asarray(draw_heatmap(Image.new("RGB", (400, 200), "black"), weights, CLIP.at(16).seen(400, 200))).astype(
        int
    )
    width = max(PANEL, WORDS) + MARGIN
    panels = [page[MARGIN + TITLE :, MARGIN + number * width :][: PANEL // 2, :PANEL] for number in range(4)]
    first = PANEL // 4  # where the middle square begins
    for panel in panels:
        assert tuple(panel[5, first]) == FRAME and tuple(panel[5, first + PANEL // 2 - 1]) == FRAME
        assert not panel[:, : first - 1].any() and not panel[:, first + PANEL // 2 + 1 :].any()
    quarter = PANEL // 8
    colours = {
        (row, column): panels[2][quarter * (1 + 2 * row), first + quarter * (1 + 2 * column)]
        for row in (0, 1)
        for column in (0, 1)
    }
    assert colours[1, 0][0] > 0.7 * HOT[0] and colours[1, 0][1] < 5
    assert all(colour[0] < 60 for place, colour in colours.items() if place != (1, 0))
    assert panels[3][quarter, first + quarter][0] > 0.7 * HOT[0]
    assert not panels[0][quarter, first + quarter].any()


@pytest.mark.parametrize("size", [(1, 1), (20_000, 3), (3, 20_000)])
def test_odd_pictures_are_drawn_small(size: tuple[int, int]) -> None:
    page = draw_heatmap(Image.new("RGB", size), torch.rand(12, 50), CLIP.at(16).seen(*size))
    assert max(page.size) < 2000
    assert page.height >= MARGIN + 3 * (PANEL // 4 + TITLE + MARGIN)  # of a strip what is around the crop


def test_the_command_draws_it(checkpoint, command, tmp_path: Path, capsys) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    asked: dict[str, Any] = {"image": tmp_path / "a.png", "question": "is there a red circle"}
    command("predict", "with", load_path=checkpoint("dvp_adaption_bert_vqa"), heatmap=tmp_path / "out.png", **asked)
    with Image.open(io.BytesIO((tmp_path / "out.png").read_bytes())) as page:
        assert page.format == "PNG" and page.width > 4 * PANEL  # the picture, the mean, and 4 heads
    assert "out.png" in capsys.readouterr().out
    there = tmp_path / "new" / "out.png"
    options = {"load_path": checkpoint("dvp_adaption_bert_vqa"), "heatmap": there, "json": True}
    command("predict", "with", **options, **asked)
    said = capsys.readouterr()
    assert json.loads(said.out)["heatmap"] == str(there) and there.is_file()
    assert f"The folder {there.parent} is made" in said.err


def test_there_is_none_of_a_blind_model(checkpoint, refused, tmp_path: Path) -> None:
    last = checkpoint("dvp_adaption_bert_gqa", image_tokens="zero")
    asked = {"question": "is there a red circle", "heatmap": tmp_path / "out.png"}
    assert "looked at no picture" in refused("predict", "with", load_path=last, **asked)
    assert not (tmp_path / "out.png").exists()
    with pytest.raises(UserError):
        draw_heatmap(Image.new("RGB", (9, 9)), torch.ones(2, 1), (0, 0, 9, 9))
