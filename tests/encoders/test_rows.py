"""Every row of the table: its tokens are those of transformers' own model and processor, in every form of a folder."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_encoders import SIZES, TAKEN, WHOLE, write_encoder
from transformers import AutoImageProcessor, AutoModel

from dvp.encoders import ENCODERS, read_folder
from dvp.encoders.loading import arithmetic, count_blocks, count_tokens, find_encoder, load_encoder, prefix_tokens
from dvp.encoders.rows import REFUSED
from dvp.encoders.transform import prepare
from dvp.errors import UserError
from dvp.vision import Vision

FORMS = [*ENCODERS, *WHOLE]
PICTURES = [Image.fromarray(np.random.default_rng(n).integers(0, 256, size, dtype=np.uint8))
            for n, size in enumerate([(47, 30, 3), (40, 60, 3), (33, 33, 3)])]  # fmt: skip


@pytest.fixture(scope="module", params=FORMS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny encoder, alone or with its text half."""
    return write_encoder(tmp_path_factory.mktemp(request.param), request.param)


@torch.no_grad()
def test_the_tokens_are_those_of_transformers(folder: str) -> None:
    theirs = AutoModel.from_pretrained(folder).eval()
    theirs = getattr(theirs, "vision_model", theirs)
    pixels = AutoImageProcessor.from_pretrained(folder, use_fast=True)(PICTURES, return_tensors="pt")["pixel_values"]
    encoder, how = load_encoder(folder), find_encoder(folder).prepared
    expected = theirs(pixel_values=pixels).last_hidden_state
    assert torch.equal(encoder(pixel_values=pixels).last_hidden_state, expected)
    ours = torch.stack([prepare(picture, how) for picture in PICTURES])
    found = Vision(encoder)({"pixel_values": ours}).tokens
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1)  # of pixels that are a level apart here and there
    assert (found - expected).abs().mean() < 0.01 * expected.std()
    assert found.shape[1:] == (count_tokens(encoder.config, pixels.shape[-1]), encoder.config.hidden_size)


def test_it_is_frozen_in_float32_and_known_before_it_is_loaded(folder: str) -> None:
    encoder, told = load_encoder(folder), find_encoder(folder)
    assert not encoder.training and not any(one.requires_grad for one in encoder.parameters())
    assert {one.dtype for one in encoder.parameters()} == {torch.float32}
    assert told == read_folder(folder) and ENCODERS[encoder.config.model_type] == told.row
    assert count_blocks(folder) == encoder.config.num_hidden_layers == 2


def test_what_no_token_passes_is_not_loaded(folder: str) -> None:
    encoder = load_encoder(folder)
    size = find_encoder(folder).prepared.size
    encoder.requires_grad_(True)
    encoder(pixel_values=torch.randn(1, 3, size, size)).last_hidden_state.sum().backward()
    idle = {name for name, one in encoder.named_parameters() if one.grad is None}
    assert idle <= {"post_layernorm.weight", "post_layernorm.bias", "embeddings.mask_token"}


@pytest.mark.parametrize("model_type", ENCODERS)
def test_patches_come_last_and_the_class_token_first(model_type: str, tmp_path: Path) -> None:
    """Of a change of one patch's pixels its own token changes most; nothing tells where the others stand."""
    encoder = load_encoder(write_encoder(tmp_path, model_type, num_hidden_layers=1))
    size, patch = TAKEN[model_type], encoder.config.patch_size
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    changed, side = pixels.clone(), size // patch
    changed[:, :, patch : 2 * patch, :patch] += 3  # the first patch of the second row
    with torch.no_grad():
        off = (encoder(pixel_values=changed).last_hidden_state - encoder(pixel_values=pixels).last_hidden_state)[0]
    prefix = prefix_tokens(encoder.config)
    assert prefix == int(ENCODERS[model_type].class_token) + SIZES[model_type].get("num_register_tokens", 0)
    assert off.norm(dim=-1).argmax() == prefix + side


@pytest.mark.parametrize("model_type", [name for name, row in ENCODERS.items() if row.class_token])
@torch.no_grad()
def test_class_tokens_are_those_of_the_blocks(model_type: str, tmp_path: Path) -> None:
    encoder = load_encoder(write_encoder(tmp_path, model_type, num_hidden_layers=3))
    seen: list[torch.Tensor] = []
    blocks = next(module for name, module in encoder.named_modules() if name.endswith(("layers", "layer")))
    assert len(blocks) == 3
    for block in blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out))
    batch = {"pixel_values": torch.randn(2, 3, TAKEN[model_type], TAKEN[model_type]), "has_image": torch.ones(2).bool()}
    found = Vision(encoder, trained=True, class_tokens=(1, 2)).eval()(batch)
    plain = encoder(pixel_values=batch["pixel_values"]).last_hidden_state
    assert torch.equal(found.tokens, plain)
    assert torch.equal(found.class_tokens, torch.stack([seen[0][:, 0], seen[1][:, 0]], dim=1))


@pytest.mark.parametrize("model_type", ENCODERS)
def test_nothing_is_drawn_anew_while_adapters_in_it_are_trained(model_type: str, tmp_path: Path) -> None:
    vision = Vision(load_encoder(write_encoder(tmp_path, model_type)), trained=True).train()
    batch = {"pixel_values": torch.randn(1, 3, TAKEN[model_type], TAKEN[model_type])}
    assert vision.encoder.training and torch.equal(vision(batch).tokens, vision(batch).tokens)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_what_a_folder_without_a_file_does_is_the_familys_way(model_type: str, tmp_path: Path) -> None:
    told = find_encoder(write_encoder(tmp_path, model_type, file=False))
    size = told.row.prepared.size if told.row.any_size else SIZES[model_type]["image_size"]
    assert told.prepared == told.row.prepared.at(size)


@pytest.mark.parametrize("pixels", [48, 64])
@pytest.mark.parametrize("model_type", ["clip", "siglip"])
def test_a_higher_resolution_is_what_the_folder_says(model_type: str, pixels: int, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, model_type, image_size=pixels)  # beside the file of a smaller one
    told = find_encoder(folder)
    assert told.prepared == told.row.prepared.at(pixels)
    encoder = load_encoder(folder)
    tokens = encoder(pixel_values=torch.zeros(1, 3, pixels, pixels)).last_hidden_state
    assert tokens.shape[1] == count_tokens(encoder.config, pixels) == told.row.class_token + (pixels // 8) ** 2


def test_the_file_of_a_processor_counts_as_in_transformers(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "siglip")
    nested = json.loads((tmp_path / "preprocessor_config.json").read_text()) | {"resample": 2}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    assert AutoImageProcessor.from_pretrained(folder).resample == find_encoder(folder).prepared.resample == 2
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "SiglipProcessor"}))
    assert AutoImageProcessor.from_pretrained(folder).resample == find_encoder(folder).prepared.resample == 3


def test_the_arithmetic_tells_encoders_of_equal_weights_apart_but_for_clips_of_before(tmp_path: Path) -> None:
    config = load_encoder(write_encoder(tmp_path, "clip")).config
    assert arithmetic(config) == ""
    config.hidden_act = "gelu"
    told = arithmetic(config)
    config.layer_norm_eps = 1e-6
    assert "" != told != arithmetic(config) and str(tmp_path) not in told and "transformers_version" not in told


@pytest.mark.parametrize("model_type", REFUSED)
def test_an_encoder_without_a_grid_of_patches_is_refused_with_what_to_take(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(UserError, match=rf"is a {model_type}, which .*: take another, such as .*google/siglip2-"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("config", [{"model_type": "vit"}, {"model_type": "bert"}, {}, {"model_type": ""}])
def test_an_unknown_one_is_refused_with_the_rows_and_the_recipe(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as refusal:
        load_encoder(str(tmp_path))
    assert all(row.name in str(refusal.value) for row in ENCODERS.values())
    (title,) = [part for part in str(refusal.value).split('"') if part.startswith("Add")]
    assert f"## {title}\n" in (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("model_type", ENCODERS)
@pytest.mark.parametrize("patch", [0, -14, "14", [14, 14], 3.5])
def test_patches_that_have_no_size_are_refused(patch: Any, model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "patch_size": patch}))
    with pytest.raises(UserError, match="which is no size"):
        load_encoder(str(tmp_path))


def test_a_processor_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": 3}))
    with pytest.raises(UserError, match="image_processor=3, which is no object"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("size", [[30, 30], 0, "large", 3.5])
def test_a_size_that_is_no_square_is_refused(size: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", "image_size": size}))
    with pytest.raises(UserError, match="which is no square"):
        find_encoder(str(tmp_path))


def test_the_table_and_the_files_are_read_without_torch(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "siglip")
    script = f"import sys, dvp.encoders as e; e.read_folder({folder!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=Path(__file__).parents[2]).returncode == 0


def test_the_documents_table_is_of_the_rows() -> None:
    page = (Path(__file__).parents[2] / "docs" / "own_image_encoder.md").read_text(encoding="utf-8")
    for model_type, row in ENCODERS.items():
        names = f"`{row.whole}`, `{model_type}`" if row.whole else f"`{model_type}`"
        class_token, science = ("class token, ", "yes") if row.class_token else ("", "no: ")
        assert f"| {row.name} | {names} | {class_token}" in page
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {row.name} |"))
        assert line.split(" | ")[-1].startswith(science)
