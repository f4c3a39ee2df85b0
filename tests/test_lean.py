"""Work that is left out changes no result: shared trunk, trimmed text, compiled layers, gradients below K."""

import dataclasses
from itertools import product
from typing import Any

import pytest
import torch
from tiny_world import LAYERS, MODELS, NAMED_FAMILIES, SENTENCES, deep, fit
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from transformers.pytorch_utils import Conv1D

from dvp.adapters import ADAPTERS
from dvp.backbones import BACKBONES
from dvp.build import build_data, build_module
from dvp.checkpoints import trained_state
from dvp.config import EXPERIMENTS
from dvp.cpu.dropout import Dropout
from dvp.data.questions import Collate
from dvp.model import DVP
from dvp.tasks import TASKS

FAMILIES = pytest.mark.parametrize("family", NAMED_FAMILIES)
ALL = pytest.mark.parametrize("family", MODELS)


@pytest.fixture
def layer_runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Index and rows of every run of a layer of BERT while scoring."""
    runs: list[tuple[int, int]] = []
    run_layer = BACKBONES["bert"].run_layer

    def spy(self: nn.Module, index: int, state: Any) -> Any:
        if not self.training:
            runs.append((index, len(state.hidden)))
        return run_layer(self, index, state)

    monkeypatch.setattr(BACKBONES["bert"], "run_layer", spy)
    return runs


# Search


def preferences(config: dict[str, Any]) -> Tensor:
    return fit(config).lightning_module.bandit.preferences


@FAMILIES
def test_preferences_are_those_of_scoring_arm_by_arm(family: str, configure, monkeypatch: pytest.MonkeyPatch) -> None:
    # A score without steps, in which every difference shows.
    score = dataclasses.replace(TASKS["vqa"], score=lambda logits, targets: (logits * targets).sigmoid().mean(1))
    monkeypatch.setitem(TASKS, "vqa", score)
    config = configure(f"dvp_search_{family}_vqa", max_steps=6, learning_rate=1e-2, search_sample=5)
    shared = preferences(config)
    together = DVP.forward_arms
    monkeypatch.setattr(
        DVP, "forward_arms", lambda self, batch, arms: {arm: together(self, batch, [arm])[arm] for arm in arms}
    )
    assert shared.abs().max() > 1e-5
    torch.testing.assert_close(shared, preferences(config), rtol=0, atol=1e-6)


@pytest.mark.parametrize("search_sample", [2, 9, "all"])
def test_a_distinct_arm_is_scored_once_on_a_shared_trunk(search_sample, configure, layer_runs: list) -> None:
    config = configure("dvp_search_bert_vqa", max_steps=1, search_sample=search_sample, batch_size=4)
    (update,) = fit(config).lightning_module.bandit.trace
    arms = sorted(set(update["arms"]))
    if search_sample == "all":
        assert update["arms"] == [0, 1, 2]
    rows = 2  # half of the batch
    scored = []
    for layer in range(LAYERS):
        branched, trunk = sum(arm <= layer for arm in arms), layer < arms[-1]
        scored.append((layer, (branched + trunk) * rows))  # all at once
    assert layer_runs[: len(scored)] == scored


# Text


# Every model with what is published, and one of them with all other adapters.
EACH = [*product(MODELS, [False, True]), *(("bert", kind) for kind in ADAPTERS if kind is not True)]


@pytest.mark.parametrize("family, use_adapter", EACH)
def test_trimmed_text_gives_the_results_of_padded_text(
    family: str, use_adapter: bool | str, make_dvp, batch_of, language_models
) -> None:
    model = make_dvp(family, use_adapter=use_adapter).eval()
    tokenizer = BACKBONES[MODELS[family][0]].tokenizer(language_models[family])
    rows = [{"text": text, "labels": [0], "scores": [1.0]} for text in SENTENCES[:3]]
    trimmed, padded = (Collate(tokenizer, TASKS["vqa"], 7, 40, pad_to_max)(rows) for pad_to_max in (False, True))
    assert trimmed["input_ids"].shape[1] < padded["input_ids"].shape[1] == 40
    image = {"pixel_values": batch_of(family)["pixel_values"]}
    with torch.no_grad():
        short, long = (model.forward_arms(batch | image, range(LAYERS)) for batch in (trimmed, padded))
    for layer in range(LAYERS):
        torch.testing.assert_close(short[layer], long[layer], rtol=0, atol=1e-5)


@pytest.mark.parametrize("as_published", [False, True])
@FAMILIES
def test_only_t5_as_published_keeps_its_padding(family: str, as_published: bool, configure) -> None:
    data = build_data(configure(f"dvp_search_{family}_vqa", as_published=as_published, max_text_len=40))
    padded = next(iter(data.train_dataloader()))["input_ids"].shape[1] == 40
    assert padded == (as_published and family == "t5")


# Compiled layers


# Compiling takes a second and more: families that run as another does are left out.
ON_THEIR_OWN = ("modernbert", "mistral", "gemma2", "gemma3_text", "gpt2")


@pytest.mark.parametrize(
    "family, use_adapter",
    [*product(NAMED_FAMILIES, [False, True]), *product(ON_THEIR_OWN, [False]), ("bert", "lora"), ("bert", "ia3")],
)
def test_the_forward_pass_is_one_graph(family: str, use_adapter: bool | str, make_dvp, batch_of) -> None:
    model, batch = make_dvp(family, use_adapter=use_adapter).eval(), batch_of(family)
    torch._dynamo.reset()
    compiled = torch.compile(lambda batch: model(batch, 1), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(batch), model(batch, 1))


@FAMILIES
def test_a_compiled_run_ends_as_any_other(
    family: str, configure, make_language_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_language_model(family, **deep(family, 9))  # more than dynamo's own limit
    options = {"tokenizer": folder, "per_gpu_batchsize": 3, "batch_size": 3}
    config = configure(f"dvp_search_{family}_vqa", max_steps=6, **options)
    monkeypatch.setattr(Dropout, "forward", nn.Dropout.forward)  # compiled layers drop out other values
    plain = preferences(config)
    torch._dynamo.reset()
    counter, compile_ = CompileCounterWithBackend("eager"), nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compile_(self, **options, backend=counter))
    torch.testing.assert_close(preferences(config | {"compile": True}), plain, rtol=0, atol=1e-6)
    assert 0 < counter.frame_count < 3 * 9  # the layers share their graphs


# Gradients


@ALL
def test_a_frozen_model_has_no_gradient_graph_below_the_prompt(family: str, make_dvp, batch_of, monkeypatch) -> None:
    model = make_dvp(family)
    model.backbone.requires_grad_(False)
    run_layer, states = model.backbone.run_layer, []

    def spy(index: int, state: Any) -> Any:
        states.append(run_layer(index, state))
        return states[-1]

    monkeypatch.setattr(model.backbone, "run_layer", spy)
    model(batch_of(family), 2).sum().backward()
    assert [state.hidden.requires_grad for state in states] == [False, False, True]
    assert all(parameter.grad is not None for parameter in model.compressors.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("family, use_adapter", EACH)
def test_checkpointed_gradients_are_the_same(
    family: str, use_adapter: bool | str, configure, settings_of, batch_of
) -> None:
    config = configure("dvp_adaption_bert_vqa", **settings_of(family), drop_rate=0.0, use_adapter=use_adapter)
    gradients, runs = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        changed = config | {"gradient_checkpointing": checkpointing}
        model = build_module(changed, build_data(changed)).model.train()
        for module in model.backbone.modules():
            module.p = 0.0  # of every dropout
        calls: list[nn.Module] = []
        inner = next(module for module in model.backbone.layers[0].modules() if isinstance(module, nn.Linear | Conv1D))
        inner.register_forward_pre_hook(lambda layer, args, calls=calls: calls.append(layer))
        model(batch_of(family), 1).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in trained_state(model).items()})
        runs.append(len(calls))
    assert runs == [1, 2]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6, msg=name)


# Checkpoints


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_what_is_saved_is_what_the_optimiser_trains(experiment: str, configure) -> None:
    config = configure(experiment, insert_layer=1)
    module = build_module(config, build_data(config))
    checkpoint: dict[str, Any] = {"state_dict": {}}
    module.on_save_checkpoint(checkpoint)
    module.trainer = type("Trainer", (), {"estimated_stepping_batches": 8})
    groups = module.configure_optimizers()["optimizer"].param_groups
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    names = {name for name, parameter in module.named_parameters() if id(parameter) in trained}
    assert set(checkpoint["state_dict"]) == names
    assert not [name for name, _ in module.named_buffers() if name in module.state_dict() and "vision" not in name]
