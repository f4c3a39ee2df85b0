"""PEFT's adapters: where they go, what is refused, and that they are not loaded unless they are asked for."""

import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_world import fit, shake
from torch import nn
from transformers import AutoModel

from dvp.adapters import ADAPTERS, Injected
from dvp.backbones import BACKBONES, LanguageBackbone, load_backbone
from dvp.checkpoints import is_adapter, read_description, trained_state
from dvp.config.rules import PEFT
from dvp.errors import UserError
from dvp.model import adapt_language_model

ROOT = Path(__file__).parents[2]
BERT = "dvp_adaption_bert_vqa"


def test_the_rules_know_the_rows() -> None:
    assert [kind for kind, row in ADAPTERS.items() if isinstance(row, Injected)] == list(PEFT)


@pytest.mark.parametrize("rank, targets", [(2, ["q_proj"]), (5, ["mlp.up_proj", "v_proj"]), (3, "all-linear")])
def test_rank_and_targets_are_what_is_asked_for(rank: int, targets: Any, language_models: dict[str, str]) -> None:
    backbone = load_backbone(language_models["llama"])
    adapt_language_model(backbone, kind="lora", adapter_rank=rank, adapter_targets=targets, lora_alpha=3 * rank)
    found = {name: p for name, p in backbone.named_parameters() if "lora_A" in name and "layers.0." in name}
    ends = "q k v o up down gate".split() if targets == "all-linear" else [end[-6] for end in targets]
    assert len(found) == len(ends) and {len(parameter) for parameter in found.values()} == {rank}
    assert backbone.adapted == {"adapter_targets": targets, "adapter_rank": rank, "lora_alpha": 3 * rank}
    assert backbone.layers[0].mlp.up_proj.scaling["default"] == 3 if "up" in ends else True


def test_the_targets_are_those_that_peft_knows(language_models: dict[str, str]) -> None:
    found = {}
    for family in BACKBONES:
        adapt_language_model(backbone := load_backbone(language_models[family]), kind="lora")
        found[family] = backbone.adapted["adapter_targets"]
    assert found | {"bert": ["query", "value"], "t5": ["q", "v"], "llama": ["q_proj", "v_proj"]} == found


def test_a_language_model_that_peft_does_not_know_says_its_own_or_is_asked_for(language_models, monkeypatch) -> None:
    from peft.utils import constants

    monkeypatch.delitem(constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, "bert")
    backbone = load_backbone(language_models["bert"])
    with pytest.raises(UserError, match="no targets of a 'bert' model: give adapter_targets=<names>, of query, key, "):
        adapt_language_model(backbone, kind="lora")
    monkeypatch.setattr(BACKBONES["bert"], "peft_targets", {"LORA": ["key"]})
    adapt_language_model(backbone, kind="lora")
    assert backbone.adapted["adapter_targets"] == ["key"]


def test_a_target_that_no_layer_has_is_refused_with_those_that_there_are(tiny, refused, tmp_path: Path) -> None:
    settings = tiny(BERT, use_adapter="lora", adapter_targets="q_proj,value,LayerNorm", insert_layer=1)
    sentence = refused("with", BERT, **settings)
    assert "adapter_targets=LayerNorm,q_proj: no linear layer of this 'bert' model is named so" in sentence
    assert "give some of query, key, value, dense." in sentence
    assert not list(Path(settings["log_dir"]).rglob("*.ckpt"))


WRONG = {
    "rank 0": ({"use_adapter": "lora", "adapter_rank": 0}, "adapter_rank=0 is wrong: .* at least 1"),
    "no number": ({"use_adapter": "lora", "adapter_rank": "wide"}, "adapter_rank='wide' is wrong: .* at least 1"),
    "unknown": ({"use_adapter": "lorra"}, "use_adapter='lorra' .* one of True, False, lora, dora, ia3, frozen"),
    "in capitals": ({"use_adapter": "LoRA"}, r"\(write 'lora'\)"),
    "prefix": ({"use_adapter": "prefix"}, "use_adapter=prefix is not offered"),
    "alpha 0": ({"use_adapter": "lora", "lora_alpha": 0}, "lora_alpha=0 is wrong: it must be a number above 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_in_a_sentence(case: str, configure) -> None:
    settings, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        configure(BERT, **settings)


def test_scienceqa_has_adapters_of_its_own(configure, science) -> None:
    with pytest.raises(UserError, match="use_adapter=lora is not offered for scienceqa: set it to True"):
        fit(configure("dvp_adaption_llama_sqa", **science[1], use_adapter="lora"))


def test_without_peft_its_package_is_named(tiny, refused, language_models, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    assert "use_adapter=dora needs the package peft: pip install peft" in refused(
        "with", BERT, **tiny(BERT, use_adapter="dora")
    )
    with pytest.raises(UserError, match="needs the package peft: pip install peft"):  # where nothing was looked at
        adapt_language_model(load_backbone(language_models["bert"]), kind="dora")


def test_peft_is_loaded_only_when_it_is_asked_for(language_models: dict[str, str]) -> None:
    """Which transformers' own schedules would, too, and bitsandbytes with it, wherever they are installed."""
    script = """
import sys
import dvp.build
from dvp.backbones import BACKBONES, LanguageBackbone, load_backbone
from dvp.model import adapt_language_model
for kind in (True, "frozen"):
    adapt_language_model(load_backbone(sys.argv[1]), kind=kind)
sys.exit(bool({"peft", "bitsandbytes"} & set(sys.modules)))
"""
    command = [sys.executable, "-W", "ignore", "-c", script, language_models["bert"]]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


# The language model alone


@torch.no_grad()
def read_by_theirs(language_model: nn.Module, backbone: LanguageBackbone, batch: dict[str, torch.Tensor]) -> Any:
    """What is read out of texts alone, of the whole model of transformers."""
    texts = {key: batch[key] for key in ("input_ids", "attention_mask")}
    if together := language_model.config.is_encoder_decoder:
        texts["decoder_input_ids"] = torch.zeros_like(texts["input_ids"][:, :1])
    hidden = language_model.eval()(**texts).last_hidden_state
    last = backbone.read_token == "last" and not together
    places = texts["attention_mask"].sum(1) - 1 if last else torch.zeros(len(hidden), dtype=torch.long)
    return hidden[torch.arange(len(hidden)), places]


@pytest.mark.parametrize("kind", PEFT)
@pytest.mark.parametrize("family", BACKBONES)
def test_peft_opens_what_is_saved_and_merged_it_is_the_same(
    family: str, kind: str, make_dvp, batch_of, language_models: dict[str, str], tmp_path: Path
) -> None:
    from peft import PeftModel

    model, row, batch = make_dvp(family, use_adapter=kind).eval(), ADAPTERS[kind], batch_of(family)
    backbone = model.backbone
    shake(nn.ParameterList(p for p in backbone.parameters() if p.requires_grad))
    weights = {name: one.detach() for name, one in backbone.model.named_parameters() if one.requires_grad}
    with torch.no_grad():
        ours = backbone.read_out(model.run(backbone.embed(batch), {}))
    plain = AutoModel.from_pretrained(language_models[family])
    assert not torch.allclose(read_by_theirs(plain, backbone, batch), ours, atol=1e-3)
    row.write_config(tmp_path, weights, backbone.adapted, family, "base")
    save_file(row.saved(weights), tmp_path / "adapter_model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of keys that are missing or left over
        theirs = PeftModel.from_pretrained(plain, tmp_path)
    torch.testing.assert_close(read_by_theirs(theirs, backbone, batch), ours, atol=1e-5, rtol=1e-4)
    row.merge(backbone.model)
    assert not [name for name, _ in backbone.named_parameters() if is_adapter(name)]
    with torch.no_grad():
        merged = backbone.read_out(model.run(backbone.embed(batch), {}))
    torch.testing.assert_close(merged, ours, atol=1e-5, rtol=1e-4)


# Checkpoints


OTHER = {
    "rank": ({"adapter_rank": 4}, "adapter_rank is 8 there and 4 here"),
    "alpha": ({"lora_alpha": 16}, "lora_alpha is 8 there and 16 here"),
    "targets": ({"adapter_targets": ["key"]}, r"adapter_targets is \['query', 'value'\] there and \['key'\] here"),
    "kind": ({"use_adapter": "dora"}, "use_adapter is lora there and dora here"),
    "ours": ({"use_adapter": True}, "use_adapter is lora there and True here"),
    "whole": ({"use_adapter": False}, "use_adapter is lora there and False here"),
    "model": ({"tokenizer": "other"}, "the frozen weights are others than those it was trained beside"),
}


@pytest.mark.parametrize("case", OTHER)
def test_weights_of_another_base_or_shape_are_refused(
    case: str, configure, checkpoint: Callable[..., Path], make_language_model
) -> None:
    changes, message = OTHER[case]
    if "tokenizer" in changes:
        changes = {"tokenizer": make_language_model("bert", intermediate_size=40)}
    last = checkpoint(BERT, use_adapter="lora", insert_layer=1)
    for way in ("load_path", "resume_from"):
        with pytest.raises(UserError, match=message) as refusal:
            fit(configure(BERT, **{"use_adapter": "lora", "insert_layer": 1, way: str(last)} | changes))
        assert ("frozen" in str(refusal.value)) == (case == "model")


def test_what_was_typed_otherwise_is_named_before_a_test(checkpoint, tiny, refused, command) -> None:
    last = checkpoint(BERT, use_adapter="lora", insert_layer=1, adapter_targets=["key"])
    told = {"adapter_rank": 8, "adapter_targets": ["key"], "lora_alpha": 8, "use_adapter": "lora"}
    assert {key: read_description(str(last))[key] for key in told} == told
    options = tiny(BERT, test_only=True, load_path=last)
    assert "adapter_rank is 8 there and 2 here" in refused("with", **options, adapter_rank=2)
    command("with", **options, adapter_targets="key")
    assert list(Path(options["log_dir"]).glob("vqa_submit_last.json"))


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_run_trains_its_rows_parameters_in_fp32_beside_16_bit(kind: bool | str, configure) -> None:
    config = configure("dvp_adaption_llama_vqa", use_adapter=kind, precision="bf16", backbone_dtype="bfloat16")
    module = fit(config).lightning_module
    assert {parameter.dtype for parameter in trained_state(module).values()} == {torch.float32}
    frozen = [p for p in module.model.backbone.parameters() if not p.requires_grad]
    assert {parameter.dtype for parameter in frozen} == {torch.bfloat16}


@pytest.mark.parametrize("kind", [kind for kind in ADAPTERS if kind is not True])
def test_a_training_goes_on_from_a_searchs_weights_and_a_whole_model_too(kind: str, configure, capsys) -> None:
    search = fit(configure("dvp_search_bert_vqa", use_adapter=kind, learning_rate=1e-2)).lightning_module
    (last,) = Path(search.trainer.log_dir).rglob("last.ckpt")
    weights = trained_state(search)
    for use_adapter in (kind, False):
        capsys.readouterr()
        changes = {"use_adapter": use_adapter, "insert_layer": 1, "load_path": str(last), "learning_rate": 0.0}
        module = fit(configure(BERT, **changes, decay_power="constant")).lightning_module
        said, own = capsys.readouterr().out, trained_state(module)
        assert f"From the search {last}, at K = 1: compressor 1, " in said
        assert ("adapters, head, norms" in said) == (use_adapter == kind != "frozen")
        shared = [name for name in weights if not name.startswith("model.compressors.") and name in own]
        assert len(shared) >= 6 and all(torch.equal(own[name], weights[name]) for name in shared)
