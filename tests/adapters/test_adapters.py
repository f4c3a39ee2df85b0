"""Adapters: where they sit, what they change, and what is trained beside them."""

import re
from collections.abc import Callable

import pytest
import torch
from tiny_world import LAYERS, MODELS
from torch import nn

from dvp.adapters import ADAPTERS, Adapted, Adapter, Injected, Wrapped, freeze, inject_adapters
from dvp.backbones import BACKBONES, load_backbone
from dvp.model import DVP
from dvp.optim import parameter_groups

FAMILIES = pytest.mark.parametrize("family", MODELS)
KINDS = pytest.mark.parametrize("kind", ADAPTERS)


def adapters(root: nn.Module) -> int:
    return sum(isinstance(module, Adapted) for module in root.modules())


def stir(model: nn.Module, kind: bool | str) -> None:
    """Let the adapters have learnt something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if re.search(ADAPTERS[kind].trained, name):
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


def inside(model: nn.Module) -> set[str]:
    """The parameters of all adapters, by what their modules say of themselves."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    parts = {f"{name}.adapter": one.adapter for name, one in model.named_modules() if isinstance(one, Adapted)}
    for name, one in model.named_modules():
        if isinstance(one, BaseTunerLayer):
            parts |= {f"{name}.{part}": getattr(one, part) for part in one.adapter_layer_names}
    return {f"{name}.{parameter}" for name, part in parts.items() for parameter, _ in part.named_parameters()}


def norms(model: nn.Module) -> set[str]:
    """The parameters of all norms, but for the embeddings' own."""
    names = [name for name, module in model.named_modules() if type(module).__name__.endswith("Norm")]
    return {
        f"{name}.{parameter}"
        for name in names
        if "embeddings" not in name
        for parameter, _ in model.get_submodule(name).named_parameters()
    }


@FAMILIES
@pytest.mark.parametrize("kind", [kind for kind, row in ADAPTERS.items() if isinstance(row, Wrapped)])
def test_every_sub_layer_gets_one_adapter(family: str, kind: bool | str, make_dvp: Callable[..., DVP]) -> None:
    model = make_dvp(family, use_adapter=kind).backbone.model
    expected = BACKBONES[MODELS[family][0]].adapters_per_layer
    stacks = {name: model.get_submodule(name) for name in expected}
    for name, stack in stacks.items():
        assert [adapters(layer) for layer in stack] == [expected[name]] * len(stack)
    assert adapters(model) == sum(map(adapters, stacks.values()))


@FAMILIES
@KINDS
def test_adapters_that_have_learnt_nothing_change_nothing(
    family: str, kind: bool | str, make_dvp: Callable[..., DVP], batch_of: Callable
) -> None:
    plain, adapted = make_dvp(family).eval(), make_dvp(family, use_adapter=kind).eval()
    adapted.head.load_state_dict(plain.head.state_dict())
    adapted.compressors.load_state_dict(plain.compressors.state_dict())
    batch = batch_of(family)
    with torch.no_grad():
        for module in adapted.modules():
            if isinstance(module, Adapted):  # ours begin with something, PEFT's do not
                nn.init.zeros_(module.adapter.up.weight)
        torch.testing.assert_close(adapted(batch, 1), plain(batch, 1))
        stir(adapted, kind)
        assert torch.allclose(adapted(batch, 1), plain(batch, 1), atol=1e-5) == (kind == "frozen")


@FAMILIES
@KINDS
def test_adapter_mode_trains_adapters_norms_compressor_and_head_alone(
    family: str, kind: bool | str, make_dvp: Callable
) -> None:
    model = make_dvp(family, use_adapter=kind)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    own = {name for name, _ in model.named_parameters() if name.startswith(("compressors.", "head."))}
    beside = {f"backbone.model.{name}" for name in norms(model.backbone.model)}
    assert own and beside
    assert trained == own | (inside(model) | beside if kind != "frozen" else set())
    assert bool(inside(model)) == (kind != "frozen")


@FAMILIES
@KINDS
def test_arms_on_a_shared_trunk_are_each_alone(family: str, kind: bool | str, make_dvp: Callable, batch_of) -> None:
    model, batch = make_dvp(family, use_adapter=kind, arms=None).eval(), batch_of(family)
    stir(model, kind)
    with torch.no_grad():
        together = model.forward_arms(batch, range(LAYERS))
        for layer in range(LAYERS):
            torch.testing.assert_close(together[layer], model(batch, layer), rtol=0, atol=1e-5)


@FAMILIES
@KINDS
def test_weight_decay_leaves_biases_norms_and_scales(family: str, kind: bool | str, make_dvp: Callable) -> None:
    groups = parameter_groups(make_dvp(family, use_adapter=kind).backbone.named_parameters(), 1e-3, 0.1, 1)
    decayed = {name for group in groups if group["weight_decay"] for name in group["names"]}
    left = {name for group in groups if not group["weight_decay"] for name in group["names"]}
    assert {name.split(".")[-2] for name in decayed if kind is not True} <= {"default"}
    assert bool(decayed) == (kind in (True, "lora", "dora"))
    assert any("magnitude" in name for name in left) == (kind == "dora")
    assert any("ia3" in name for name in left) == (kind == "ia3")


@FAMILIES
@pytest.mark.parametrize("use_adapter", [False, *ADAPTERS])
@pytest.mark.parametrize("insert_layer", [0, LAYERS - 1])
def test_the_gradient_reaches_every_trained_parameter(
    family: str, use_adapter: bool | str, insert_layer: int, make_dvp: Callable[..., DVP], batch_of: Callable
) -> None:
    model = make_dvp(family, use_adapter=use_adapter)
    if isinstance(ADAPTERS.get(use_adapter), Injected):
        stir(model, use_adapter)  # PEFT's begin with a matrix of zeros, behind which nothing moves
    model(batch_of(family), insert_layer).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        # The softmax takes a key bias off again; and T5's start token, alone below the prompt, attends to itself.
        if parameter.requires_grad and "key.bias" not in name and insert_layer == 0:
            assert parameter.grad.abs().sum() > 0, name


def test_the_bottleneck_is_a_residual_of_the_reduced_width() -> None:
    adapter = Adapter(32, 8, nn.ReLU, lambda weight: nn.init.normal_(weight, std=0.01))
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(
        adapter(x), x + torch.relu(x @ adapter.down.weight.T + adapter.down.bias) @ adapter.up.weight.T
    )
    assert adapter.down.weight.shape == (4, 32)
    assert Adapter(32, 64, nn.SiLU, nn.init.xavier_uniform_).down.out_features == 1


def test_nothing_matched_is_an_error() -> None:
    with pytest.raises(ValueError, match="no module of Sequential ends with one of attention"):
        inject_adapters(nn.Sequential(nn.Linear(2, 2)), ["attention"], nn.Identity)


def test_only_whole_names_match() -> None:
    root = nn.ModuleDict({"my_proj": nn.Linear(2, 2), "proj": nn.Linear(2, 2)})
    assert inject_adapters(root, ["proj"], nn.Identity) == ["proj"]


def test_freeze_leaves_what_the_expression_finds(language_models: dict[str, str]) -> None:
    backbone = load_backbone(language_models["bert"])
    freeze(backbone, r"layer\.1\..*LayerNorm")
    trained = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    assert len(trained) == 4
    assert all("layer.1." in name and "LayerNorm" in name for name in trained)
