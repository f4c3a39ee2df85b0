"""load_encoder: folders of encoders give their image halves, and whatever is none is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_encoders import write_encoder, write_open_clip
from transformers import BertConfig, CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from dvp.encoders.loading import find_encoder, load_encoder
from dvp.errors import UserError

VISION = dict(
    hidden_size=32, num_attention_heads=2, num_hidden_layers=2, intermediate_size=64, image_size=32, patch_size=16
)
TEXT = dict(hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=64, vocab_size=50)


def whole_clip() -> CLIPModel:
    text = TEXT | {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return CLIPModel(CLIPConfig(vision_config=VISION, text_config=text)).eval()


@pytest.mark.parametrize("form", ["whole CLIP", "image encoder alone", "sharded safetensors", "pytorch_model.bin"])
def test_a_hugging_face_folder_gives_its_image_encoder(form, tmp_path):
    whole = whole_clip()
    tower = whole.vision_model
    if form == "image encoder alone":
        tower = CLIPVisionModel(CLIPVisionConfig(**VISION)).eval()
        tower.save_pretrained(tmp_path)
    elif form == "sharded safetensors":
        whole.save_pretrained(tmp_path, max_shard_size="20KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
    else:
        whole.half().save_pretrained(tmp_path)
        whole.float()
    if form == "pytorch_model.bin":
        weights = tmp_path / "model.safetensors"
        torch.save(load_file(weights), tmp_path / "pytorch_model.bin")
        weights.unlink()
    images = torch.randn(2, 3, 32, 32)
    model = load_encoder(str(tmp_path))
    expected = tower(pixel_values=images).last_hidden_state
    torch.testing.assert_close(model(pixel_values=images).last_hidden_state, expected, atol=1e-5, rtol=0)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def break_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def break_type(folder: Path) -> None:
    BertConfig().save_pretrained(folder)


def break_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def break_truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def break_sizes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_config, "no config.json of an image encoder"),
        (break_type, "model_type: bert"),
        (break_weights, "weights cannot be read"),
        (break_truncated, "weights cannot be read"),
        (break_sizes, "encoder.layers.2.* is missing"),
    ],
)
def test_a_folder_that_is_not_a_whole_clip_is_refused(damage, message, tmp_path):
    whole_clip().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch16", "/nowhere/at/all", "no such name", "nowhere.pt"])
def test_what_is_nowhere_says_what_to_give(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=f"No image encoder {name} here .* --local-dir"):
        load_encoder(name)


@pytest.mark.parametrize("kind", ["siglip", "dinov2", "open_clip"])
def test_a_hub_name_is_read_from_the_cache_of_the_hub(kind: str, monkeypatch, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--someone--encoder" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    if kind == "open_clip":
        write_open_clip(snapshot, {}, {}, {"resize_mode": "squash"})
    else:
        write_encoder(snapshot, kind)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    for name, value in {"HF_HUB_OFFLINE": True, "HF_HUB_CACHE": str(tmp_path)}.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    assert find_encoder("someone/encoder") == find_encoder(str(snapshot))
    there, here = (load_encoder(name).state_dict() for name in ("someone/encoder", str(snapshot)))
    assert there.keys() == here.keys() and all(there[name].equal(here[name]) for name in here)
