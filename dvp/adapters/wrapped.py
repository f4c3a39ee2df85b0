"""Adapters of ours: small trained bottlenecks on the output of frozen sub-layers, put there by wrapping."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from dvp.adapters.freezing import NOTHING, freeze


class Adapter(nn.Module):
    """x + up(activation(down(x))), the bottleneck `dim // reduction` wide (at least 1)."""

    def __init__(self, dim: int, reduction: int, activation: type[nn.Module], init: Callable[[Tensor], Any]):
        super().__init__()
        width = max(1, dim // reduction)
        self.down = nn.Linear(dim, width)
        self.activation = activation()
        self.up = nn.Linear(width, dim)
        for layer in (self.down, self.up):
            init(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.activation(self.down(x)))


class Adapted(nn.Module):
    """`base`, then `adapter` on its output."""

    def __init__(self, base: nn.Module, adapter: nn.Module):
        super().__init__()
        self.base = base
        self.adapter = adapter

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.adapter(self.base(*args, **kwargs))


def inject_adapters(root: nn.Module, sites: Sequence[str], make: Callable[[], nn.Module]) -> list[str]:
    """Wrap every sub-module whose dotted name ends with one of `sites`; returns the names wrapped.

    Raises ValueError when nothing matched.
    """
    names = [name for name, _ in root.named_modules() if any(f".{name}".endswith(f".{site}") for site in sites)]
    if not names:
        raise ValueError(f"no module of {type(root).__name__} ends with one of {', '.join(sites)}")
    for name in names:
        parent, _, child = name.rpartition(".")
        owner = root.get_submodule(parent)
        setattr(owner, child, Adapted(getattr(owner, child), make()))
    return names


def adapt(root: nn.Module, sites: Sequence[str], make: Callable[[], nn.Module]) -> list[str]:
    """Put adapters after `sites` and leave only them trainable.

    Returns the names wrapped; raises ValueError when nothing matched.
    """
    names = inject_adapters(root, sites, make)
    freeze(root, Wrapped.trained)
    return names


@dataclass(frozen=True)
class Wrapped:
    """A row of ADAPTERS: an adapter of ours on the output of the sub-layers that a language model names."""

    adapter: type[nn.Module]
    trained = r"\.adapter\."
    beside = True

    def add_to(self, backbone: nn.Module, reduction: int | None = None, **settings: Any) -> dict[str, Any]:
        """Put it in; returns nothing, since its width is seen. reduction: another than the language model's own."""
        options = backbone.adapter | ({"reduction": reduction} if reduction else {})
        inject_adapters(backbone, backbone.adapter_sites, partial(self.adapter, backbone.hidden_size, **options))
        return {}


@dataclass(frozen=True)
class Unadapted:
    """A row of ADAPTERS: none; all of the language model stays as it is."""

    trained = NOTHING
    beside = False

    def add_to(self, backbone: nn.Module, **settings: Any) -> dict[str, Any]:
        """Returns nothing."""
        return {}
