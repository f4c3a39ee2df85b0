"""The embedded world's pre-trained models, as they lie in the repository."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from dvp.backbones import load_backbone
from dvp.encoders.loading import load_encoder
from dvp.shapes.corpus import sentences
from dvp.shapes.pretrain import LANGUAGE, MODELS, make
from dvp.shapes.world import SIZE

FAMILIES = tuple(LANGUAGE)
TEXT = sentences(2000)


def test_all_models_together_take_at_most_8_megabytes():
    sizes = [path.stat().st_size for path in MODELS.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= 8_000_000


@pytest.mark.parametrize("family", FAMILIES)
def test_language_models_load_whole(family):
    backbone = load_backbone(str(MODELS / family))
    assert len(backbone.layers) == 4 and 64 <= backbone.hidden_size <= 128


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizers_know_every_word_of_the_world(family):
    tokenizer = AutoTokenizer.from_pretrained(MODELS / family)
    ids = tokenizer(TEXT)["input_ids"]
    assert not any(tokenizer.unk_token_id in row for row in ids)
    assert len(tokenizer) == AutoConfig.from_pretrained(MODELS / family).vocab_size


@pytest.mark.parametrize(
    ("family", "file"), [("bert", "vocab.txt"), ("t5", "spiece.model"), ("llama", "tokenizer.model")]
)
def test_tokenizers_are_their_familys_own(family, file):
    assert (MODELS / family / file).is_file()
    tokenizer = AutoTokenizer.from_pretrained(MODELS / family)
    assert type(tokenizer).__name__.lower().startswith(family)
    assert (tokenizer.pad_token is None) == (family == "llama")


def test_clip_loads_and_its_preprocessing_fits():
    vision = load_encoder(str(MODELS / "clip"))
    settings = json.loads((MODELS / "clip" / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert vision.config.image_size == SIZE
    assert settings["crop_size"] == {"height": SIZE, "width": SIZE}
    assert settings["size"] == {"shortest_edge": SIZE}


@pytest.mark.parametrize("name", ["clip", *FAMILIES])
def test_pre_training_makes_a_model_that_loads(name, tmp_path):
    assert "2" in make(name, tmp_path, steps=2, sample=200)
    assert load_encoder(str(tmp_path / name)) if name == "clip" else load_backbone(str(tmp_path / name))
    assert Path(tmp_path / name / "model.safetensors").is_file()
