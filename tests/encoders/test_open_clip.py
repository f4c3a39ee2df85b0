"""Folders of open_clip: tokens and pictures are what the package itself makes of them, or they are refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_encoders import TOWER, write_open_clip

import dvp
from dvp.data.image_tokens import encoder_hash, weights_hash
from dvp.encoders import read_folder
from dvp.encoders.loading import arithmetic, count_blocks, count_tokens, find_encoder, load_encoder
from dvp.encoders.transform import prepare
from dvp.errors import UserError
from dvp.vision import Vision

TRAIN = "dvp_adaption_bert_vqa"
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {  # model_cfg, vision_cfg, preprocess_cfg
    "laion, gelu": ({}, {}, {}),
    "openai, quick_gelu": ({"quick_gelu": True}, {}, {}),
    "heads, mlp_ratio": ({}, {"head_width": 16, "mlp_ratio": 3.0}, {}),
    "336": ({"quick_gelu": True}, {"image_size": 48}, {"size": 48}),
    "DFN, squash": (
        {},
        {},
        {"resize_mode": "squash", "interpolation": "bilinear", "std": [0.3, 0.2, 0.1]},
    ),
    "worldwide": ({}, {"final_ln_after_pool": True, "pool_type": "avg", "norm_kwargs": {"eps": 1e-3}}, {}),
    "tanh": ({}, {"act_kwargs": {"approximate": "tanh"}, "patch_dropout": 0.5}, {}),
}


@pytest.mark.parametrize("weights", ["safetensors", "bin"])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_tokens_and_pictures_are_those_of_open_clip(case: str, weights: str, tmp_path: Path) -> None:
    write_open_clip(tmp_path, *CASES[case], weights)
    theirs, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (47, 90, 3), dtype=np.uint8))
    pixels, seen = transform(picture)[None], []
    theirs.eval().visual.transformer.register_forward_hook(lambda _, __, output: seen.append(output))
    theirs.encode_image(pixels)
    told, encoder = find_encoder(str(tmp_path)), load_encoder(str(tmp_path))
    assert torch.equal(prepare(picture, told.prepared)[None], pixels)
    tokens = encoder(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(tokens, seen[0], rtol=0, atol=1e-4)
    assert tokens.shape[1] == count_tokens(encoder.config, told.prepared.size) and told == read_folder(str(tmp_path))
    assert count_blocks(str(tmp_path)) == 2 and not encoder.training


def test_activations_of_equal_weights_are_told_apart(tmp_path: Path) -> None:
    encoders = []
    for model in ({}, {"quick_gelu": True}, {"vision_cfg": TOWER | {"norm_kwargs": {"eps": 1e-3}}}):
        write_open_clip(tmp_path, model, {}, {})
        encoders.append(Vision(load_encoder(str(tmp_path))))
    assert '"gelu"' in arithmetic(encoders[0].encoder.config) and arithmetic(encoders[1].encoder.config) == ""
    assert len(set(map(weights_hash, encoders))) == 1 and len(set(map(encoder_hash, encoders))) == 3
    assert encoder_hash(encoders[1]) == weights_hash(encoders[1])  # as in caches of before


def test_a_run_takes_it_and_an_export_brings_it_along_in_transformers_layout(
    command: Callable[..., None], tiny: Callable[..., dict], tmp_path: Path
) -> None:
    (base := tmp_path / "base").mkdir()
    write_open_clip(base, {}, {}, {"resize_mode": "squash"})
    command("with", TRAIN, **tiny(TRAIN, clip_model=base, image_size=32, insert_layer=1))
    (last,) = (tmp_path / "result").rglob("last.ckpt")
    asked = (Image.effect_noise((50, 30), 90), "is there a red circle")
    answer = dvp.load(last).answer(*asked)
    command("export", "with", load_path=last, to=tmp_path / "out", with_base=True)
    shutil.rmtree(base)
    kept = json.loads((tmp_path / "out" / "image_encoder" / "config.json").read_text())
    assert (kept["model_type"], kept["hidden_act"]) == ("clip_vision_model", "gelu")
    assert dvp.load(tmp_path / "out").answer(*asked) == answer


def test_a_folder_of_both_layouts_is_read_in_transformers(tmp_path: Path) -> None:
    write_open_clip(tmp_path, {}, {}, {})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {"image_size": 64}}))
    told = read_folder(str(tmp_path))
    assert not told.open_clip and told.prepared.size == 64


@pytest.mark.parametrize(
    "tower, told",
    [
        ({"timm_model_name": "vit_base_patch16_siglip_224"}, "names vit_base_patch16_siglip_224 of timm"),
        ({"layers": [2, 2, 2, 2]}, "layers="),
        ({"width": "64"}, "width=64"),
        ({"no_ln_pre": True}, "no_ln_pre"),
        ({"ls_init_value": 0.1}, "ls_init_value"),
        ({"attentional_pool": True}, "attentional_pool"),
        ({"qk_norm": True}, "qk_norm"),
        ({"block_type": "custom"}, "block_type"),
        ({"act_kwargs": {"inplace": True}}, "act_kwargs.inplace"),
        ({"norm_kwargs": {"bias": False}}, "norm_kwargs.bias"),
        ({"something_new": 3}, "something_new"),
    ],
)
def test_another_tower_is_refused_by_name(tower: dict[str, Any], told: str, tmp_path: Path) -> None:
    config = {"model_cfg": {"vision_cfg": TOWER | tower}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"open_clip_config.json .*{told}.*: take a CLIP whose vision_cfg has"):
        load_encoder(str(tmp_path))


def test_pictures_that_are_padded_are_refused(tmp_path: Path) -> None:
    write_open_clip(tmp_path, {}, {}, {"resize_mode": "longest"})
    with pytest.raises(UserError, match="do_pad=True"):
        find_encoder(str(tmp_path))


@pytest.mark.parametrize("content", [{}, {"model_cfg": {}}, {"model_cfg": []}, {"model_cfg": {"vision_cfg": "ViT"}}])
def test_a_file_of_something_else_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has no model_cfg with a vision_cfg: copy"):
        find_encoder(str(tmp_path))


def test_weights_that_are_missing_damaged_or_of_other_sizes_are_refused(tmp_path: Path) -> None:
    write_open_clip(tmp_path, {}, {}, {})
    weights = tmp_path / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:4000])
    with pytest.raises(UserError, match="safetensors is damaged"):
        load_encoder(str(tmp_path))
    weights.unlink()
    with pytest.raises(UserError, match="has none of open_clip_model.safetensors, .*: put the weights"):
        load_encoder(str(tmp_path))
    write_open_clip(tmp_path, {}, {"width": 32, "head_width": 8}, {})
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["head_width"] = 5
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="width 32 cannot have 6 heads"):
        load_encoder(str(tmp_path))
