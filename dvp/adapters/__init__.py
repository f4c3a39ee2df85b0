"""Adapters: what is trained of a language model that stays frozen, by what `use_adapter` says.

A row puts them in (`add_to`: a language model and settings -> what a checkpoint tells of them), says how their
parameters are named (`trained`), and whether the language model's norms are trained beside them (`beside`).
"""

from dvp.adapters.freezing import freeze
from dvp.adapters.injected import LORA, Injected
from dvp.adapters.wrapped import Adapted, Adapter, Unadapted, Wrapped, adapt, inject_adapters

__all__ = [
    "ADAPTERS",
    "Adapted",
    "Adapter",
    "Injected",
    "Unadapted",
    "Wrapped",
    "adapt",
    "freeze",
    "inject_adapters",
]

ADAPTERS: dict[bool | str, Wrapped | Injected | Unadapted] = {
    True: Wrapped(Adapter),
    "lora": Injected("LORA", LORA),
    "dora": Injected("LORA", LORA, {"use_dora": True}),
    "ia3": Injected("IA3", {}),
    "frozen": Unadapted(),
}
