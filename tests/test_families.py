"""The families of language models: each runs as a whole, and what has no row is refused with the nearest one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_world import MODELS, NAMED_FAMILIES, SENTENCES, picture
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
)

import dvp
from dvp.backbones import BACKBONES, family_of, load_backbone, load_with_head
from dvp.config import check
from dvp.errors import UserError
from dvp.families import FAMILIES, REFUSED
from dvp.runs.described import backbone_dtype
from dvp.runs.devices import precision_of

AUTO = {"encoder": AutoModelForMaskedLM, "encoder_decoder": AutoModelForSeq2SeqLM, "decoder": AutoModelForCausalLM}


@pytest.fixture
def with_head(language_models: dict, tmp_path: Path) -> Callable[[str], tuple[Path, PreTrainedModel]]:
    """Writes a model of MODELS with the head that public folders have; returns the folder and the model."""

    def make(model: str) -> tuple[Path, PreTrainedModel]:
        row, folder = FAMILIES[MODELS[model][0]], shutil.copytree(language_models[model], tmp_path / "model")
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(folder)
        whole = AUTO[row.kind].from_config(config, attn_implementation=row.attention).eval()
        whole.save_pretrained(folder)
        return folder, whole

    return make


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in NAMED_FAMILIES])
def test_a_search_and_a_training_that_goes_on_from_it(
    family: str, command: Callable, tiny: Callable, settings_of: Callable, arm_one_is_better: None, tmp_path: Path
) -> None:
    settings = tiny("dvp_search_bert_vqa", **settings_of(family), max_steps=1, use_adapter=True)
    command("with", "dvp_search_bert_vqa", **settings | {"report": True})  # which counts its operations, too
    command("with", "dvp_adaption_bert_vqa", **settings, start_from="search", insert_layer="auto")
    (last,) = tmp_path.glob("result/dvp_adaption*/version_0/checkpoints/last.ckpt")
    described = json.loads((last / "description.json").read_text(encoding="utf-8"))
    answer = dvp.load(last).answer(picture(1), "is it red ?")
    command("export", "with", load_path=last, to=tmp_path / "exported")
    elsewhere = dvp.load(tmp_path / "exported", **{key: settings[key] for key in ("tokenizer", "clip_model")})
    assert elsewhere.answer(picture(1), "is it red ?") == answer
    assert described["language_model"].upper() == settings["language_model"] and 0 < answer.probability <= 1


@pytest.mark.parametrize("family", [family for family, row in FAMILIES.items() if row.headed])
def test_scienceqa_is_trained_and_answered(
    family: str, command: Callable, science: tuple, with_head: Callable, tmp_path: Path
) -> None:
    sizes = {"max_text_len": 600, "max_steps": 1, "batch_size": 2, "per_gpu_batchsize": 2, "max_new_tokens": 2}
    settings = science[1] | {"tokenizer": with_head(family)[0], "language_model": family.upper(), "num_heads": 4}
    command("with", "dvp_adaption_llama_sqa", **settings | sizes, log_dir=tmp_path, num_gpus=0, num_workers=0)
    (last,) = tmp_path.rglob("last.ckpt")
    answer = dvp.load(last).answer(None, "Which colour is it?", ("red", "blue"))
    assert answer.letter in ("A", "B") or not answer.text


# Folders as they lie on disks


@torch.no_grad()
@pytest.mark.parametrize("model", MODELS)
def test_a_folder_with_its_head_gives_the_same_weights(model: str, with_head: Callable) -> None:
    folder, whole = with_head(model)
    (folder / "params.json").write_text("{}")  # Mistral's folders have Meta's, too
    backbone = load_backbone(str(folder))
    there = whole.base_model.state_dict()
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, there[name]), name
    if FAMILIES[MODELS[model][0]].headed:
        ids = torch.arange(5, 17)[None]
        backbone, head = load_with_head(str(folder))
        hidden = backbone.eval().model(ids).last_hidden_state
        torch.testing.assert_close(head(hidden), whole(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_shapes_are_known_without_weights(model: str, language_models: dict) -> None:
    known, held = (load_backbone(language_models[model], empty=empty).named_parameters() for empty in (True, False))
    assert {name: one.shape for name, one in known} == {name: one.shape for name, one in held}


# In 16 bits


@pytest.mark.parametrize("family", FAMILIES)
def test_what_overflows_in_fp16_is_not_computed_in_it(
    family: str, configure: Callable, settings_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("dvp_adaption_bert_vqa", **settings_of(family)) | {"num_gpus": 1}
    overflows = {"t5", "mt5", "gemma2", "gemma3_text"}
    for has_bf16, expected in ((True, "bf16-mixed"), (False, "32-true" if family in overflows else "16-mixed")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has_bf16: has)
        assert precision_of(config) == expected
    if family in overflows:
        with pytest.raises(UserError, match=f"precision=16 makes {family.upper()}'s activations overflow"):
            check(config | {"precision": 16})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("use_adapter", [False, True])
def test_frozen_decoders_are_held_in_bf16(family: str, use_adapter: bool, configure, settings_of: Callable) -> None:
    config = configure("dvp_adaption_bert_vqa", **settings_of(family), use_adapter=use_adapter, precision="bf16")
    large = use_adapter and FAMILIES[family].kind == "decoder" and family != "gpt2"
    assert backbone_dtype(config) == (torch.bfloat16 if large else torch.float32)
    assert backbone_dtype(config | {"precision": 32}) == torch.float32


# Tokenizers


@pytest.mark.parametrize("family", [one for one, row in FAMILIES.items() if row.vocabulary.file.endswith(".json")])
def test_ids_are_those_of_transformers_own_tokenizer(family: str, language_models: dict) -> None:
    own = AutoTokenizer.from_pretrained(language_models[family])
    tokenizer = BACKBONES[family].tokenizer(language_models[family])
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for text in (*SENTENCES, "What is  red ?", "caf\u00e9, a\nline"):
        words = own(text, add_special_tokens=False)["input_ids"]
        assert tokenizer(text)["input_ids"] == [*begin, *words, tokenizer.eos_token_id], text


@pytest.mark.parametrize("family", [one for one, row in FAMILIES.items() if row.tiny_tokenizer == "GPT2Tokenizer"])
def test_vocab_json_and_merges_are_put_together(family: str, language_models: dict, tmp_path: Path) -> None:
    whole = Path(language_models[family])
    model = json.loads((whole / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = model["model"]["vocab"] | {token["content"]: token["id"] for token in model["added_tokens"]}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["model"]["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges), encoding="utf-8")
    for name in ("config.json", "tokenizer_config.json"):
        shutil.copy(whole / name, tmp_path)
    texts = [*SENTENCES, "What is  red ?", "<|endoftext|>"]
    expected = BACKBONES[family].tokenizer(str(whole))(texts)
    assert BACKBONES[family].tokenizer(str(tmp_path))(texts) == expected


# What has no row

WITHOUT = {
    "deberta-v2": ({"architectures": ["DebertaV2ForMaskedLM"]}, "BERT is the nearest"),
    "umt5": ({"is_encoder_decoder": True}, "MT5 is the nearest"),
    "bart": ({"is_encoder_decoder": True, "architectures": ["BartModel"]}, "T5 is the nearest"),
    "mixtral": ({"architectures": ["MixtralForCausalLM"]}, "MISTRAL is the nearest"),
    "phi": ({"architectures": ["PhiForCausalLM"]}, "LLAMA is the nearest"),
    "gpt_neo": ({"architectures": ["GPTNeoForCausalLM"]}, "GPT2 is the nearest"),
    "gemma3": ({}, "GEMMA is the nearest"),
    "electra": ({}, "BERT is the nearest"),
}


@pytest.mark.parametrize("model_type", sorted({*WITHOUT, *REFUSED}))
def test_a_family_without_a_row_is_refused_with_the_nearest(model_type: str, tiny, refused, tmp_path: Path) -> None:
    config, near = WITHOUT[model_type]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type} | config), encoding="utf-8")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError) as late:
        family_of(str(tmp_path))
    early = refused("with", "dvp_search_bert_vqa", **tiny("dvp_search_bert_vqa", tokenizer=tmp_path))
    for sentence in (str(late.value), early):
        assert f"holds a {model_type!r} model, a family without a row" in sentence
        assert near in sentence and "ROBERTA" in sentence and "CONTRIBUTING.md" in sentence
        assert REFUSED.get(model_type, "") in sentence


def test_a_decoder_that_reads_both_ways_is_refused(make_language_model: Callable) -> None:
    folder = make_language_model("gemma3_text", use_bidirectional_attention=True)
    with pytest.raises(UserError, match="read in both directions: use a model that writes texts"):
        family_of(folder)


@pytest.mark.parametrize("family", [family for family, row in FAMILIES.items() if not row.headed])
def test_what_cannot_write_here_is_refused(family: str, language_models: dict) -> None:
    with pytest.raises(UserError, match="does not write texts here: give a model of llama, mistral, qwen2"):
        load_with_head(language_models[family])


@pytest.mark.parametrize("family", [family for family, row in FAMILIES.items() if row.first_position is not None])
def test_a_text_longer_than_its_positions_is_refused(family: str, tiny, settings_of, refused) -> None:
    config = json.loads((Path(settings_of(family)["tokenizer"]) / "config.json").read_text(encoding="utf-8"))
    places = config.get("max_position_embeddings", config.get("n_positions")) - FAMILIES[family].first_position
    settings = tiny("dvp_adaption_bert_vqa", **settings_of(family), max_text_len=places + 1)
    assert f"set max_text_len={places} or less" in refused("with", "dvp_adaption_bert_vqa", **settings)
