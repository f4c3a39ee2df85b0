"""What of a model goes into a checkpoint, and how it comes out: exactly, or refused with what differs."""

import hashlib
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dvp.errors import UserError

SAMPLED = 4096  # values per tensor that go into the fingerprint
# What explains other frozen weights; of a blind run no image encoder is among them.
FROZEN_BY = ("language_model", "backbone_dtype", "quantize", "use_adapter", "adapter_targets", "blind")
TYPED = {"blind": "blind (image_tokens=zero)"}  # of what a description tells, what is called otherwise when it is typed


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters of a module by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """The names of the tensors in which a value is infinite or not a number."""
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]


def load_trained(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put the weights into the module's trainable parameters; refuses any missing, left-over or misshapen name.

    And any that holds a value that is not finite.
    """
    own = trained_state(module)
    wrong = [f"{name} is missing" for name in own.keys() - weights.keys()]
    wrong += [f"{name} is not in this model" for name in weights.keys() - own.keys()]
    wrong += [
        f"{name} has shape {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    if wrong:
        listed = "; ".join(sorted(wrong)[:8])
        raise UserError(f"The checkpoint does not fit this model: {listed}. Give the settings and models it was of.")
    require_finite(weights)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def require_finite(tensors: dict[str, Tensor]) -> None:
    """Raise UserError, with their names, where tensors of a checkpoint hold values that are not finite."""
    if found := not_finite(tensors):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(
            f"The checkpoint holds values that are not finite, in {', '.join(found[:3])}{more}: take one of before."
        )


def refuse_other(described: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise UserError with what differs between a checkpoint's description and the run that wants to load it.

    What a description does not tell, since it is older than the setting, is looked up in its config, or not compared.
    """
    config = described.get("config") or {}
    told = {key: value for key, value in config.items() if value != "auto"} | described
    different = [key for key, value in expected.items() if key in told and told[key] != value]
    if "frozen" in different and set(FROZEN_BY) & set(different):
        different.remove("frozen")
    listed = [
        f"{TYPED.get(key, key)} is {_short(told[key])} there and {_short(expected[key])} here" for key in different
    ]
    if "frozen" in different:
        listed[different.index("frozen")] = (
            "the frozen weights are others than those it was trained beside "
            f"(tokenizer={config.get('tokenizer')}, clip_model={config.get('clip_model')})"
        )
    if listed:
        raise UserError(f"The checkpoint belongs to another run: {'; '.join(listed)}. Give the settings it has there.")


def fingerprint(
    module: nn.Module, renamed: Callable[[str], str] = str, frozen: Callable[[str], bool] | None = None
) -> str:
    """A hash of all frozen parameters: names (`renamed`), shapes and an even sample of the values of each.

    frozen: by their renamed names, those that count as such, where it is not those that are.
    """
    digest = hashlib.sha256()
    named = sorted(((renamed(name), parameter) for name, parameter in module.named_parameters()), key=itemgetter(0))
    for name, parameter in named:
        if frozen(name) if frozen else not parameter.requires_grad:
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter  # asked on all ranks
            values = whole.detach().flatten()
            sample = values[:: max(1, len(values) // SAMPLED)].float().cpu()
            digest.update(f"{name} {tuple(parameter.shape)}".encode())
            digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(value)})"
