"""Checkpoints of the published code, made from the golden state: they load, or are refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from golden_cases import Case, cases
from lightning_file import write_lightning
from torch import Tensor
from torch.utils.data import DataLoader

from dvp.build import build_data, build_module
from dvp.checkpoints import TrainedOnly, read_checkpoint
from dvp.errors import UserError
from dvp.module import DVPModule
from dvp.published.classification import load_published
from dvp.search import MeanScores

FORWARD = cases("forward")
# one case of each backbone, with adapters and without
FEW = list({(case.meta["backbone"], case.meta["use_adapter"]): case for case in FORWARD}.values())


class OneBatch(pl.LightningDataModule):
    """A test split of one golden batch, without labels."""

    def __init__(self, batch: dict[str, Tensor]):
        super().__init__()
        self.test, self.truncated = ("test",), {}
        self.batch = batch | {"question_id": list(range(len(batch["targets"])))}

    def test_dataloader(self) -> DataLoader:
        return DataLoader([self.batch], batch_size=None)

    def labelled(self, splits: tuple[str, ...]) -> bool:
        return False

    def questions(self, splits: tuple[str, ...]) -> SimpleNamespace:
        return SimpleNamespace(question_ids=lambda: self.batch["question_id"])


def save(folder: Path, case: Case, state: dict[str, Tensor] | None = None) -> str:
    """A file of the case's own state, or of another."""
    config = case.meta["config"] | {"language_model": case.meta["backbone"].upper()}
    return write_lightning(folder / "published.ckpt", case.state() if state is None else state, config)


def fresh(case: Case, **options: object) -> DVPModule:
    """A module of the case's sizes with other weights everywhere, CLIP included."""
    module = case.module(case.empty_model(), **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module.eval()


@pytest.mark.parametrize("case", FORWARD, ids=str)
def test_a_test_run_answers_as_the_golden_logits_do(case: Case, tmp_path: Path) -> None:
    module = fresh(case, predictions_path=tmp_path / "submit.json")
    load_published(save(tmp_path, case), module)
    with torch.no_grad():
        logits = module.model(case.batch(), module.best_layer)
    torch.testing.assert_close(logits, case.tensors["out.logits"], rtol=0, atol=1e-4)
    if module.task.submission:
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        trainer.test(module, datamodule=OneBatch(case.batch()), verbose=False)
        answers = [row[module.task.submission[1]] for row in json.loads((tmp_path / "submit.json").read_text())]
        assert answers == [f"answer {label}" for label in case.tensors["out.logits"].argmax(1).tolist()]
        assert json.loads((tmp_path / "submit.about.json").read_text())["as_published"] is True


@pytest.mark.parametrize("case", FEW, ids=str)
def test_every_key_is_used_or_named_with_a_reason(case: Case, tmp_path: Path) -> None:
    module, state = fresh(case), case.state()
    state["other_classifier.0.weight"] = torch.ones(1)
    ignored = load_published(save(tmp_path, case, state), module)
    unread = {key for key in state if key.endswith((".position_ids", ".inv_freq", ".proj")) or ".pooler." in key}
    firsts = ("bert_model.", "llama_model.", "t5_model.shared.", "t5_model.encoder.b", "t5_model.decoder.b")
    firsts += ("t5_model.encoder.f", "t5_model.decoder.f", "visumodel.", "cross_attn", "token_type_embeddings")
    firsts += ("adapter_modules.", "encoder_adapter.", "decoder_adapter.", f"{case.meta['task']}_classifier.")
    aliases = {key for key in state if not key.startswith(firsts)}
    assert ignored.keys() == unread | aliases
    assert all(ignored.values())


@pytest.mark.parametrize("case", FEW, ids=str)
def test_training_goes_on_from_it(case: Case, tmp_path: Path) -> None:
    """The weights that it loads are those that are trained, saved and loaded again."""
    module = fresh(case).train()
    load_published(save(tmp_path, case), module)
    model, batch = module.model, case.batch()
    module.task.loss(model(batch, module.arm), batch["targets"]).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    checkpoint: dict = {"state_dict": {}}
    module.on_save_checkpoint(checkpoint)
    TrainedOnly().save_checkpoint(checkpoint, str(tmp_path / "ours.ckpt"))
    again = fresh(case)
    load_published(save(tmp_path, case), again)  # the frozen weights
    again.load_weights(*read_checkpoint(str(tmp_path / "ours.ckpt")))
    with torch.no_grad():
        torch.testing.assert_close(again.model(batch, again.arm), case.tensors["out.logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", cases("search"), ids=str)
def test_a_search_goes_on_from_it(case: Case, tmp_path: Path) -> None:
    module = fresh(case)
    load_published(save(tmp_path, case), module)
    assert torch.equal(module.bandit.preferences, case.tensors["alphas.0"])
    step = case.meta["steps"][0]
    with torch.no_grad():
        logits = module.model.forward_arms(case.batch("minival", step["minival_rows"]), step["arms"])
    ours = torch.stack([logits[arm] for arm in step["arms"]])
    torch.testing.assert_close(ours, case.tensors["step0.logits"], rtol=0, atol=2e-4)


def test_only_the_published_rule_goes_on_from_it(tmp_path: Path) -> None:
    case = cases("search")[0]
    module = fresh(case)
    module.bandit = MeanScores(module.model.num_layers)
    with pytest.raises(UserError, match="kab=published"):
        load_published(save(tmp_path, case), module)


def drop(key: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: state.pop(key)


def put(key: str, value: Tensor) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: state.update({key: value})


def move_a_copy(state: dict[str, Tensor]) -> None:
    key = next(key for key in state if key.startswith(("bert_encoder.", "t5_encoder.block", "layers.")))
    state[key] = state[key] + 1


def deepen_clip(state: dict[str, Tensor]) -> None:
    layers = len({key.split(".")[3] for key in state if key.startswith("visumodel.transformer.")})
    for key in [key for key in state if key.startswith("visumodel.transformer.resblocks.0.")]:
        state[key.replace(".0.", f".{layers}.", 1)] = state[key]


SPOILED = {
    "missing": (drop("cross_attn.linear_q.weight"), "cross_attn.linear_q.weight is missing"),
    "misshapen": (put("cross_attn.linear_q.bias", torch.ones(1)), r"linear_q.bias has shape \(1,\), not \("),
    "unknown": (put("prefix_encoder.weight", torch.ones(1)), "prefix_encoder.weight is not in this model"),
    "CLIP incomplete": (drop("visumodel.ln_pre.weight"), "is missing"),
    "CLIP deeper": (deepen_clip, "of CLIP is only in the checkpoint"),
    "unequal copies": (move_a_copy, "second name"),
    "of a search": (put("layer_alphas", torch.zeros(4)), "comes from a search .* this run is an adaption"),
}


@pytest.mark.parametrize("fault", SPOILED)
@pytest.mark.parametrize("case", FEW, ids=str)
def test_what_does_not_fit_is_refused_whole(case: Case, fault: str, tmp_path: Path) -> None:
    state, module = case.state(), fresh(case)
    spoil, message = SPOILED[fault]
    spoil(state)
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    with pytest.raises(UserError, match=message):
        load_published(save(tmp_path, case, state), module)
    assert all(torch.equal(before[name], parameter) for name, parameter in module.named_parameters())


@pytest.mark.parametrize("case", cases("search")[:1], ids=str)
def test_another_depth_of_search_is_refused(case: Case, tmp_path: Path) -> None:
    state = case.state() | {"layer_alphas": torch.zeros(99)}
    with pytest.raises(UserError, match="99 layers"):
        load_published(save(tmp_path, case, state), fresh(case))


@pytest.mark.parametrize("case", cases("search")[:1], ids=str)
def test_an_adaption_does_not_start_a_search(case: Case, tmp_path: Path) -> None:
    state = case.state()
    del state["layer_alphas"]
    with pytest.raises(UserError, match="comes from an adaption"):
        load_published(save(tmp_path, case, state), fresh(case))


@pytest.mark.parametrize("case", cases("forward", "t5")[:1], ids=str)
def test_a_t5_needs_the_published_arithmetic(case: Case, tmp_path: Path) -> None:
    module = case.module(case.empty_model(as_published=False), as_published=False)
    with pytest.raises(UserError, match="as_published=True"):
        load_published(save(tmp_path, case), module)


def test_load_path_takes_a_file_for_such_a_checkpoint(configure: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "published.ckpt")
    config = configure("dvp_adaption_bert_gqa", insert_layer=1, load_path=str(tmp_path / "published.ckpt"))
    with pytest.raises(UserError, match="no checkpoint of the published code"):
        build_module(config, build_data(config))


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4 truncated", b"nothing of the kind"], ids=["empty", "truncated", "text"]
)
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "published.ckpt").write_bytes(content)
    with pytest.raises(UserError, match="published.ckpt"):
        load_published(str(tmp_path / "published.ckpt"), fresh(FORWARD[0]))


@pytest.mark.parametrize("checkpoint", [torch.ones(2), {"model": {}}, {"state_dict": {"step": 3}}], ids=str)
def test_a_file_without_a_state_dict_is_refused(checkpoint: object, tmp_path: Path) -> None:
    torch.save(checkpoint, tmp_path / "published.ckpt")
    with pytest.raises(UserError, match="no state_dict"):
        load_published(str(tmp_path / "published.ckpt"), fresh(FORWARD[0]))
