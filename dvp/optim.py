"""Optimiser, parameter groups and learning-rate schedules, in optimiser updates.

AdamW is torch's. The published one, transformers' of old, differs in two places: it adds eps to the raw root of the
second moment, not to the bias-corrected one; and the decay, rate * weight_decay * weight, comes after the step, so that
the step itself is decayed too. Four golden steps, at rates of 0.01 and 0.1 and a decay of 0.1, end apart by less than
1 % of the way that the weights went (tests/test_optim.py); the usual, smaller rates keep them closer.
"""

import math
import re
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def decayed_by_name(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to all but every bias (T5's relative position bias too), norm and learnt scale."""
    return not re.search(r"bias|norm|\.ln_|\.ia3_l\.|magnitude", name.lower())


def decayed_by_shape(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to matrices, not to vectors."""
    return parameter.ndim > 1


DECAYED = {"by name": decayed_by_name, "by shape": decayed_by_shape}


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    learning_rate: float,
    weight_decay: float,
    lr_mult: float,
    as_published: bool = False,
    decayed: str = "by name",
) -> list[dict]:
    """Four groups of the trainable parameters: decayed or not, times body or head (whose rate is times lr_mult).

    decayed: a key of DECAYED.
    """
    groups = [
        {"params": [], "names": [], "weight_decay": decay, "lr": rate}
        for rate in (learning_rate, learning_rate * lr_mult)
        for decay in (weight_decay, 0.0)
    ]
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        in_head = name.startswith("head.")
        undecayed = not DECAYED[decayed](name, parameter)
        if as_published and name == "head.norm.weight":
            undecayed = False  # Published: the classifier's LayerNorm is decayed, since its name there says no "norm".
        group = groups[2 * in_head + undecayed]
        group["params"].append(parameter)
        group["names"].append(name)
    return groups


def _on(groups: list[dict], *devices: str) -> bool:
    return all(parameter.device.type in devices for group in groups for parameter in group["params"])


# Fused, an optimiser makes one pass over all, and leaves an update out that is not finite (`found_inf`) on the device.
OPTIMIZERS = {
    "adamw": lambda groups, rate, betas=(0.9, 0.98): torch.optim.AdamW(
        groups, rate, betas=betas, eps=1e-8, fused=_on(groups, "cpu", "cuda")
    ),
    "adam": lambda groups, rate, betas=None: torch.optim.Adam(groups, rate, fused=_on(groups, "cuda")),
    "sgd": lambda groups, rate, betas=None: torch.optim.SGD(groups, rate, momentum=0.9, fused=_on(groups, "cuda")),
}


def build_schedule(
    optimizer: Optimizer, total_steps: int, warmup_steps: int | float, decay_power: float | str, end_lr: float
) -> LambdaLR:
    """Linear warm-up, then constant, cosine or polynomial decay over `total_steps` optimiser updates.

    warmup_steps: a count, or as a float the share of total_steps. decay_power: "constant", "cosine" or the power. The
    same as those of transformers (a test compares), whose import would bring peft and bitsandbytes along.
    """
    warmup = int(total_steps * warmup_steps) if isinstance(warmup_steps, float) else warmup_steps
    rate = optimizer.defaults["lr"]

    def factor(update: int) -> float:
        if update < warmup:
            return update / warmup
        gone = (update - warmup) / max(1, total_steps - warmup)
        if decay_power == "constant":
            return 1.0
        if decay_power == "cosine":
            return max(0.0, 0.5 * (1 + math.cos(math.pi * gone)))
        return ((rate - end_lr) * max(0.0, 1 - gone) ** decay_power + end_lr) / rate

    return LambdaLR(optimizer, factor)
