"""Adapters: small trained bottlenecks on the output of frozen sub-layers, put there by wrapping."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


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


def freeze(root: nn.Module, except_for: str) -> None:
    """Leave only the parameters trainable whose dotted name matches the regular expression `except_for`."""
    for name, parameter in root.named_parameters():
        parameter.requires_grad_(re.search(except_for, name) is not None)


def adapt(root: nn.Module, sites: Sequence[str], make: Callable[[], nn.Module], trained_beside: str = "") -> list[str]:
    """Put adapters after `sites` and leave only them trainable, and what the expression `trained_beside` matches.

    Returns the names wrapped; raises ValueError when nothing matched.
    """
    names = inject_adapters(root, sites, make)
    freeze(root, "|".join(filter(None, (r"\.adapter\.", trained_beside))))
    for parameter in root.parameters():
        if parameter.requires_grad:  # a frozen base may be in 16 bit; what is trained is not
            parameter.data = parameter.data.float()
    return names
