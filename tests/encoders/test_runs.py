"""What takes an encoder takes every row's: a run with kept tokens, asking, the heat map, an export, the doctor."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_encoders import SIZES, TAKEN, write_encoder
from tiny_world import picture

import dvp
from dvp.answering.heatmap import draw_panels
from dvp.build import encode_pictures
from dvp.commands.early import check_image_encoder
from dvp.doctor.room import cache_bytes
from dvp.encoders import ENCODERS, read_folder
from dvp.errors import UserError

TRAIN, ENCODE, SCIENCE = "dvp_adaption_bert_vqa", "dvp_search_bert_vqa", "dvp_adaption_llama_sqa"
QUESTION = "is there a red circle"


@pytest.fixture
def settings(tiny: Callable[..., dict], tmp_path: Path, data_root: str) -> Callable[..., dict[str, Any]]:
    """The settings of a run with a tiny encoder, pictures of the size that it takes, and tables of its own."""

    def make(folder: Path | str, **changes: Any) -> dict[str, Any]:
        (tmp_path / "data").mkdir(exist_ok=True)
        for table in Path(data_root).glob("*vqa*.arrow"):
            if not (tmp_path / "data" / table.name).exists():
                (tmp_path / "data" / table.name).symlink_to(table)
        changes = {"clip_model": folder, "insert_layer": 1, "data_root": tmp_path / "data"} | changes
        found = tiny(TRAIN, **changes)
        return {key: value for key, value in found.items() if key != "image_size" or key in changes}

    return make


@pytest.mark.parametrize("model_type", ENCODERS)
def test_a_run_with_kept_tokens_answers_here_and_where_it_was_exported_to(
    model_type: str, command: Callable[..., None], settings: Callable[..., dict], tmp_path: Path
) -> None:
    base, row = write_encoder(tmp_path / "base", model_type), ENCODERS[model_type]
    command("with", TRAIN, **settings(base, image_tokens="cache"))
    (about,) = (tmp_path / "data" / "image_tokens").glob("*/about.json")
    prefix = row.class_token + SIZES[model_type].get("num_register_tokens", 0)
    side = TAKEN[model_type] // SIZES[model_type]["patch_size"]
    assert json.loads(about.read_text())["shape"] == [prefix + side**2, 24]

    (last,) = (tmp_path / "result").rglob("last.ckpt")
    model = dvp.load(last)
    assert model.config["image_size"] == TAKEN[model_type] and model.prefix_tokens == prefix
    answer = model.answer(picture(1), QUESTION, attention=True)
    assert answer.attention.shape[1] == prefix + side**2

    command("export", "with", load_path=last, to=tmp_path / "out", with_base=True)
    kept = read_folder(tmp_path / "out" / "image_encoder")
    assert (kept.row, kept.prepared) == (row, read_folder(base).prepared)
    written = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert written == kept.prepared.as_processor()
    shutil.rmtree(base)
    there = dvp.load(tmp_path / "out").answer(picture(1), QUESTION, attention=True)
    assert there == answer and torch.equal(there.attention, answer.attention)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_the_doctor_knows_it_and_what_of_its_tokens_is_kept(
    model_type: str, command: Callable[..., None], settings: Callable[..., dict], configure: Callable[..., dict],
    tmp_path: Path, capsys: Any,
) -> None:  # fmt: skip
    base, size = write_encoder(tmp_path / "base", model_type), TAKEN[model_type]
    command("doctor", "with", TRAIN, **settings(base))
    said = capsys.readouterr().out
    assert f"pictures of {size} pixels" in said and "The run can start." in said
    where = {"clip_model": base, "image_size": size, "data_root": str(tmp_path / "data"), "image_tokens": "cache"}
    config = configure(ENCODE, **where)
    assert cache_bytes(config) > 0
    encode_pictures(config)
    assert cache_bytes(config) == 0


def test_each_preparing_has_a_cache_and_a_checkpoint_of_its_own(
    command: Callable[..., None], settings: Callable[..., dict], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    write_encoder(base, "siglip")
    own = settings(base, image_tokens="cache")
    command("with", TRAIN, **own)
    (last,) = (tmp_path / "result").rglob("last.ckpt")
    answer = dvp.load(last).answer(picture(1), QUESTION)
    told = json.loads((base / "preprocessor_config.json").read_text())
    (base / "preprocessor_config.json").write_text(json.dumps(told | {"resample": 0}))
    with pytest.raises(
        UserError, match="another run: pictures is prepare 1, 30 of None, by 3.* and prepare 1, 30 .* by 0"
    ):
        dvp.load(last)
    command("encode", "with", ENCODE, **{key: value for key, value in own.items() if key != "insert_layer"})
    assert len(list((tmp_path / "data" / "image_tokens").glob("*/about.json"))) == 2
    (base / "preprocessor_config.json").write_text(json.dumps(told))
    assert dvp.load(last).answer(picture(1), QUESTION) == answer


@pytest.mark.parametrize(
    "model_type, image_size, told",
    [
        ("siglip", 32, "image_size=32 but .*base takes 30 pixels: set image_size=30"),
        ("clip", 30, "takes 32 pixels: set image_size=32"),
        ("dinov2", 30, "takes whole patches of 14 pixels: set image_size=28"),
        ("dinov3_vit", 4, "takes whole patches of 8 pixels: set image_size=8"),
    ],
)
def test_pictures_of_another_size_are_refused_before_torch_is_needed(
    model_type: str, image_size: int, told: str, settings: Callable[..., dict], tmp_path: Path
) -> None:
    base = write_encoder(tmp_path / "base", model_type)
    with pytest.raises(UserError) as refusal:
        check_image_encoder(base, image_size)
    assert re.search(told, str(refusal.value))


def test_a_size_that_is_typed_is_not_taken_from_the_folder(
    refused: Callable[..., str], settings: Callable[..., dict], tmp_path: Path
) -> None:
    base = write_encoder(tmp_path / "base", "siglip")
    for size in (32, 224):  # the latter is what it is by default
        assert f"image_size={size} but {base} takes 30" in refused("with", TRAIN, **settings(base, image_size=size))


def test_dino_takes_more_patches_where_it_is_asked_to(
    command: Callable[..., None], settings: Callable[..., dict], tmp_path: Path
) -> None:
    base = write_encoder(tmp_path / "base", "dinov2_with_registers")
    command("with", TRAIN, **settings(base, image_size=56, image_tokens="live"))
    (last,) = (tmp_path / "result").rglob("last.ckpt")
    model = dvp.load(last)
    assert model.answer(picture(1), QUESTION, attention=True).attention.shape[1] == 4 + 16
    assert model.seen(Image.new("RGB", (64, 64))) == (4, 4, 60, 60)  # of 32 pixels 28, as at the size of its file


# The heat map


@pytest.mark.parametrize(
    "prefix, told", [(0, "mean: 40.0%"), (1, "mean: 40.0%, class 10%"), (3, "class 10%, registers 25%")]
)
def test_the_map_is_of_the_patches_whatever_stands_before_them(prefix: int, told: str) -> None:
    before = torch.tensor([0.1, 0.05, 0.2])[:prefix]
    weights = torch.cat([before, torch.tensor([0.0, 0.0, 0.4, 0.1])])[None]
    panels = draw_panels(Image.new("RGB", (100, 100), "black"), weights, (0, 0, 100, 100), prefix)
    assert told in panels[1].title and panels[1].title.count(",") == min(prefix, 2)
    places = {(x, y): panels[1].image.getpixel((x, y))[0] for x in (56, 168) for y in (56, 168)}
    assert max(places, key=places.get) == (56, 168) and places[56, 56] == 0  # bottom left
    with pytest.raises(UserError, match="no heat map"):
        draw_panels(Image.new("RGB", (9, 9)), weights[:, :prefix], (0, 0, 9, 9), prefix)


# ScienceQA


@pytest.fixture
def science_settings(science: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The settings of a run of ScienceQA with a tiny encoder."""

    def make(folder: str, **changes: Any) -> dict[str, Any]:
        own = {key: value for key, value in science[1].items() if key != "image_size"}
        return own | {
            "clip_model": folder, "log_dir": tmp_path / "result", "num_gpus": 0, "num_workers": 0, "batch_size": 8,
            "per_gpu_batchsize": 4, "max_steps": 1, "num_heads": 4, "max_new_tokens": 4, "insert_layer": 1,
        } | changes  # fmt: skip

    return make


@pytest.mark.parametrize("model_type", [name for name, row in ENCODERS.items() if row.class_token and name != "dinov2"])
def test_science_takes_class_tokens_of_encoders_that_have_them(
    model_type: str, command: Callable[..., None], science_settings: Callable[..., dict], tmp_path: Path
) -> None:
    base = write_encoder(tmp_path / "base", model_type)
    command("with", SCIENCE, **science_settings(base))
    (last,) = (tmp_path / "result").rglob("last.ckpt")
    model = dvp.load(last, answer_by="likelihood")
    answer = model.answer(picture(5), QUESTION, ["red", "blue"], attention=True)
    assert (
        answer.attention.shape[1] == model.prefix_tokens + (TAKEN[model_type] // SIZES[model_type]["patch_size"]) ** 2
    )
    adapted = [name for name, one in model.model.vision.named_modules() if name.endswith("adapter")]
    assert len(adapted) == 2  # one a block
    whole = (0, 0, 64, 32)  # of CLIP's pictures, as published
    assert (model.seen(Image.new("RGB", (64, 32))) == whole) == (model_type != "dinov2_with_registers")


def test_science_refuses_an_encoder_without_a_class_token(
    refused: Callable[..., str], science_settings: Callable[..., dict], tmp_path: Path
) -> None:
    base = write_encoder(tmp_path / "base", "siglip")
    said = refused("with", SCIENCE, **science_settings(base))
    assert f"clip_model={base} is a SigLIP, which has no class token" in said and "take one of CLIP, DINOv2" in said
    assert not list((tmp_path / "result").rglob("*.ckpt"))
