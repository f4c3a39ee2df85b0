"""The forward pass: the image is seen from layer K on, and only from there; CLIP stays as it was."""

from collections.abc import Callable

import pytest
import torch
from tiny_world import MODELS

from dvp.checkpoints import trained_state
from dvp.model import DVP

LAYERS = 3  # of the tiny models in conftest
FAMILIES = pytest.mark.parametrize("family", MODELS)


@torch.no_grad()
@FAMILIES
@pytest.mark.parametrize("insert_layer", range(LAYERS))
def test_the_image_changes_the_logits_and_no_state_below_the_prompt(
    family: str, insert_layer: int, make_dvp: Callable[..., DVP], batch_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_dvp(family).eval()
    run_layer, states = model.backbone.run_layer, []

    def spy(index: int, state):
        states.append(state)
        return run_layer(index, state)

    monkeypatch.setattr(model.backbone, "run_layer", spy)
    batch = batch_of(family)
    first = model(batch, insert_layer)
    second = model(batch | {"pixel_values": batch["pixel_values"].roll(1, 0)}, insert_layer)
    assert ((first - second).abs().amax(1) > 1e-5).all()
    for layer, (one, other) in enumerate(zip(states[:LAYERS], states[LAYERS:], strict=True)):
        assert one.slot == other.slot == slice(0, int(layer >= insert_layer))
        assert torch.equal(one.hidden, other.hidden) == (layer < insert_layer)


@torch.no_grad()
@FAMILIES
@pytest.mark.parametrize("arms", [1, LAYERS])
def test_all_arms_at_once_equal_arm_by_arm(family: str, arms: int, make_dvp: Callable, batch_of: Callable) -> None:
    model, batch = make_dvp(family, arms=arms).eval(), batch_of(family)
    together = model.forward_arms(batch, [2, 0, 2, 1])
    assert set(together) == {0, 1, 2}
    for layer, logits in together.items():
        torch.testing.assert_close(logits, model(batch, layer))
    assert not torch.allclose(together[0], together[2])


@torch.no_grad()
@FAMILIES
@pytest.mark.parametrize("prompt_tokens", [1, 4])
def test_more_prompts_are_seen_by_the_text_and_draw_arms_as_one_does(
    family: str, prompt_tokens: int, make_dvp: Callable, batch_of: Callable
) -> None:
    model, batch = make_dvp(family, arms=LAYERS, prompt_tokens=prompt_tokens).eval(), batch_of(family)
    together = model.forward_arms(batch, range(LAYERS))
    for layer, logits in together.items():
        torch.testing.assert_close(logits, model(batch, layer))
    (compressor,) = model.compressors_at(1).values()
    state, image = model.embed(batch)
    length = state.hidden.shape[1]
    assert model.inserts(1, image)[1](state).hidden.shape[1] == length + prompt_tokens
    if prompt_tokens > 1:
        compressor.queries.weight[-1] += 1  # the last of them alone
        assert not torch.allclose(model(batch, 1), together[1])
        torch.testing.assert_close(model(batch, 0), together[0])


@torch.no_grad()
@FAMILIES
def test_at_a_second_layer_another_prompt_takes_the_place_of_the_first(
    family: str, make_dvp: Callable, batch_of: Callable
) -> None:
    model, batch = make_dvp(family, arms=2, prompt_tokens=2).eval(), batch_of(family)
    state, image = model.embed(batch)
    for index in range(LAYERS):  # by hand
        if index in (0, 2):
            state = model.compressors[index // 2].insert(model.backbone, state, image.tokens)
        state = model.backbone.run_layer(index, state)
    both = model(batch, [2, 0])
    torch.testing.assert_close(both, model.logits(state))
    for compressor in model.compressors:  # each has its say: the first, whose prompt is gone, through the text
        kept = compressor.merge.bias.clone()
        compressor.merge.bias[0] += 1  # of one channel: a LayerNorm takes off what all have in common
        assert not torch.allclose(model(batch, [0, 2]), both)
        compressor.merge.bias.copy_(kept)


@FAMILIES
def test_while_searching_only_the_arm_in_use_is_trained(family: str, make_dvp: Callable, batch_of: Callable) -> None:
    model = make_dvp(family, arms=LAYERS)
    model(batch_of(family), 1).sum().backward()
    used = [any(p.grad is not None for p in compressor.parameters()) for compressor in model.compressors]
    assert used == [False, True, False]


@FAMILIES
@pytest.mark.parametrize("use_adapter", [False, True])
def test_vision_is_frozen_and_in_eval_mode_always(family: str, use_adapter: bool, make_dvp: Callable) -> None:
    model = make_dvp(family, use_adapter=use_adapter)
    for mode in (True, False, True):
        model.train(mode)
        assert not any(module.training for module in model.vision.modules())
        assert model.head.training == mode
    assert not any(parameter.requires_grad for parameter in model.vision.parameters())
    assert not [name for name in trained_state(model) if name.startswith("vision.")]


@FAMILIES
def test_dropout_is_on_in_training_and_off_in_scoring(family: str, make_dvp: Callable, batch_of: Callable) -> None:
    model, batch = make_dvp(family), batch_of(family)
    rates = [value for name, value in model.backbone.model.config.to_dict().items() if "dropout" in name]
    assert any(isinstance(module, torch.nn.Dropout) and module.p for module in model.backbone.modules()) == any(rates)
    with torch.no_grad():
        assert not torch.equal(model(batch, 0), model(batch, 0))
        model.eval()
        assert torch.equal(model(batch, 0), model(batch, 0))


@pytest.mark.parametrize("family, width", [("bert", 64), ("t5", 64), ("llama", 4)])
def test_the_head_is_as_wide_as_published(family: str, width: int, make_dvp: Callable) -> None:
    head = make_dvp(family).head
    assert (head.dense.out_features, head.answer.in_features, head.answer.out_features) == (width, width, 7)
