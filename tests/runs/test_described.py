"""A checkpoint tells what changes its function: another setting is named, an older description still loads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import fit

from dvp.build import build_data, build_module
from dvp.checkpoints import read_description
from dvp.errors import UserError
from dvp.files import write_checksums
from dvp.runs.described import described_by

Trained = Callable[..., tuple[dict[str, Any], Path]]


@pytest.fixture
def trained(configure) -> Trained:
    """Trains an update; returns the config and the checkpoint."""

    def train(experiment: str, **changes: Any) -> tuple[dict[str, Any], Path]:
        config = configure(experiment, max_steps=1, **changes)
        (last,) = Path(fit(config).log_dir).rglob("last.ckpt")
        return config, last

    return train


def rewrite(last: Path, change: Callable[[dict], Any]) -> None:
    description = json.loads((last / "description.json").read_text())
    change(description)
    (last / "description.json").write_text(json.dumps(description))
    write_checksums(last)


def test_a_description_holds_what_changes_the_function(trained: Trained) -> None:
    _, last = trained("dvp_adaption_llama_vqa")
    told = read_description(str(last))
    expected = {
        "format": 1, "num_heads": 4, "image_size": 16, "max_text_len": 16, "quantize": None, "blind": False,
        "backbone_dtype": "float32", "compressor_width": 512, "adapter_width": 1,
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected


DIFFERENT = {
    "num_heads": (2, "num_heads is 4 there and 2 here"),
    "max_text_len": (12, "max_text_len is 16 there and 12 here"),
    "image_tokens": (
        "zero",
        r"run: blind \(image_tokens=zero\) is False there and True here\. Give",
    ),  # and nothing else,
}


@pytest.mark.parametrize(
    "key, older", [("num_heads", False), ("max_text_len", False), ("image_tokens", False), ("num_heads", True)]
)
@pytest.mark.parametrize("way", ["load_path", "resume_from"])
def test_another_setting_is_named(way: str, key: str, older: bool, trained: Trained) -> None:
    config, last = trained("dvp_adaption_bert_vqa", use_adapter=True)
    value, message = DIFFERENT[key]
    if older:
        rewrite(last, as_before_format_1)
    with pytest.raises(UserError, match=message):
        fit(config | {way: str(last), key: value, "max_steps": 2})


def as_before_format_1(description: dict[str, Any]) -> None:
    for key in ("format", "num_heads", "image_size", "max_text_len", "quantize", "blind", "backbone_dtype"):
        del description[key]
    del description["compressor_width"], description["adapter_width"]


@pytest.mark.parametrize("experiment", ["dvp_adaption_bert_vqa", "dvp_adaption_llama_vqa"])
def test_an_older_description_loads(experiment: str, trained: Trained) -> None:
    config, last = trained(experiment, precision="bf16")
    rewrite(last, as_before_format_1)
    build_module(config | {"load_path": str(last), "precision": 32}, build_data(config))
    fit(config | {"resume_from": str(last), "max_steps": 2})


@pytest.mark.parametrize("use_adapter", [False, True])
def test_a_description_without_a_config_loads(use_adapter: bool, trained: Trained) -> None:
    config, last = trained("dvp_adaption_bert_vqa", use_adapter=use_adapter)
    rewrite(last, lambda description: (as_before_format_1(description), description.pop("config")))
    build_module(config | {"load_path": str(last)}, build_data(config))


# The type of the frozen language model


@pytest.mark.parametrize("then, now", [("bf16", 32), (32, "bf16"), ("bf16", "bf16")])
def test_the_base_is_that_of_the_checkpoint_at_any_precision(
    then: Any, now: Any, trained: Trained, command, tiny
) -> None:
    config, last = trained("dvp_adaption_llama_vqa", precision=then)
    base = "bfloat16" if then == "bf16" else "float32"
    assert read_description(str(last))["backbone_dtype"] == base
    module = build_module(config | {"load_path": str(last), "precision": now}, build_data(config))
    rounded = module.model.backbone.model.layers[0].mlp.base.up_proj.weight.detach()
    assert torch.equal(rounded.bfloat16().float(), rounded.float()) is (base == "bfloat16")
    if now == 32:  # in which nothing would cast in passing
        assert {parameter.dtype for parameter in module.model.parameters()} == {torch.float32}
    options = tiny("dvp_adaption_llama_vqa") | {"test_only": True, "load_path": last, "precision": now}
    command("with", "dvp_adaption_llama_vqa", **options)
    assert list(Path(options["log_dir"]).glob("vqa_submit_last.json"))


def test_another_type_is_named_and_no_hash(trained: Trained) -> None:
    config, last = trained("dvp_adaption_llama_vqa", precision="bf16")
    with pytest.raises(UserError, match="backbone_dtype is bfloat16 there and float32 here") as refusal:
        build_module(config | {"load_path": str(last), "backbone_dtype": "float32"}, build_data(config))
    assert "frozen" not in str(refusal.value)


def test_other_frozen_weights_are_named_by_where_they_came_from(trained: Trained, make_language_model) -> None:
    config, last = trained("dvp_adaption_bert_vqa", use_adapter=True)
    other = make_language_model("bert", intermediate_size=40)
    with pytest.raises(UserError, match=f"frozen weights are others .*tokenizer={config['tokenizer']}") as refusal:
        build_module(config | {"load_path": str(last), "tokenizer": other}, build_data(config))
    assert read_description(str(last))["frozen"][:12] not in str(refusal.value)


def test_a_16_bit_base_is_trained_at_32_bit_too(configure) -> None:
    trainer = fit(configure("dvp_adaption_llama_vqa", backbone_dtype="bfloat16", precision=32))
    assert trainer.callback_metrics["vqa/train/loss"].isfinite()
    assert described_by(trainer.lightning_module.config, trainer.lightning_module.model)["backbone_dtype"] == "bfloat16"
