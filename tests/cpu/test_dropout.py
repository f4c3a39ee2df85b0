"""Dropout with cheap random numbers: as often, as large in the mean, and as repeatable as torch's."""

import pytest
import torch
from torch import nn

from dvp.backbones import BACKBONES, load_backbone
from dvp.cpu.dropout import Dropout, replace_dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.9])
@pytest.mark.parametrize("shape", [(1000, 1000), (999_999,)])
def test_it_drops_as_often_as_asked_and_keeps_the_mean(p: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape)
    out = Dropout(p)(x)
    assert out.shape == x.shape and out.dtype == x.dtype
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=0.002)
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-4)


def test_neighbours_that_share_a_draw_are_dropped_independently() -> None:
    torch.manual_seed(0)
    dropped = (Dropout(0.5)(torch.ones(400_000)) == 0).view(-1, 4).float()
    assert torch.corrcoef(dropped.T).fill_diagonal_(0).abs().max() < 0.01


def test_a_gradient_goes_where_the_value_went() -> None:
    x = torch.randn(4, 50, requires_grad=True)
    out = Dropout(0.3)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x, out)


def test_it_is_repeated_by_the_generators_state_and_off_in_evaluation() -> None:
    layer, x, state = Dropout(0.3), torch.randn(3, 7), torch.get_rng_state()
    first = layer(x)
    torch.set_rng_state(state)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)
    assert layer.eval()(x) is x


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_or_all_is_left_to_torch(p: float) -> None:
    x = torch.randn(5)
    assert torch.equal(Dropout(p)(x), nn.Dropout(p)(x))


@pytest.mark.parametrize("family", BACKBONES)
def test_every_dropout_of_a_language_model_is_replaced(family: str, language_models: dict[str, str]) -> None:
    folder = language_models[family]
    stock, kinds = (
        [type(module) for module in model.modules() if isinstance(module, nn.Dropout)]
        for model in (BACKBONES[family].model_class.from_pretrained(folder), load_backbone(folder))
    )
    assert kinds == [Dropout] * len(stock)


def test_what_is_no_plain_dropout_stays() -> None:
    root = nn.ModuleDict({"plain": nn.Dropout(0.2), "other": nn.Dropout1d(0.2), "deep": nn.Sequential(nn.Dropout(0.4))})
    replace_dropout(root)
    assert (type(root["plain"]), type(root["deep"][0])) == (Dropout, Dropout)
    assert (root["plain"].p, root["deep"][0].p) == (0.2, 0.4)
    assert type(root["other"]) is nn.Dropout1d
