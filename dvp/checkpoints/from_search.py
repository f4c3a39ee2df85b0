"""The checkpoint of a search as one that a run at K starts from: an arm's compressor, and all that the arms share."""

import re
from typing import Any

from torch import Tensor, nn

from dvp.checkpoints.weights import fingerprint
from dvp.families import layers_in

COMPRESSORS = "model.compressors."
ADAPTER = re.compile(r"\.(adapter|lora_\w+|ia3_\w+)\.")  # behind the name of what it adapts
# How the names of what the arms share begin, and what it is called.
SHARED = (("model.head.", "head"), ("model.prefix.", "prefix"), ("model.backbone.", "norms"))


def at_layer(
    weights: dict[str, Tensor], description: dict[str, Any], layer: int | list[int]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights and the description of a search's checkpoint as those of a training at `layer`."""
    kept = {name: one for name, one in weights.items() if not name.startswith(COMPRESSORS)}
    for number, arm in enumerate(layers_in(layer)):
        own = f"{COMPRESSORS}{arm}."
        mine = {
            name.replace(own, f"{COMPRESSORS}{number}."): one for name, one in weights.items() if name.startswith(own)
        }
        kept |= mine
    return kept, description | {"search_stage": False, "insert_layer": layer}


def without_adapters(
    weights: dict[str, Tensor],
    description: dict[str, Any],
    own: dict[str, Tensor],
    here: dict[str, Any],
    model: nn.Module,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The same for a run that trains the whole language model: without adapters, the rest of it as it was frozen there.

    own: what the run trains, as it stands; here: what it says of itself. That `model` begins from the weights that were
    frozen there is still checked, by their names there.
    """
    trained = {name.removeprefix("model.") for name in weights}
    found = {name[: match.start()]: match[1] for name in trained if (match := ADAPTER.search(name))}
    inner = {site: "base" if kind == "adapter" else "base_layer" for site, kind in found.items()}  # PEFT's word

    def name_there(name: str) -> str:
        site = next((site for site in inner if name.startswith(f"{site}.")), "")
        return f"{site}.{inner[site]}{name.removeprefix(site)}" if site else name

    same = fingerprint(model, name_there, lambda name: name not in trained) == description["frozen"]
    kept = {name: one for name, one in weights.items() if not is_adapter(name)}
    settled = {key: here[key] for key in ("use_adapter", "adapter_width") + (("frozen",) if same else ())}
    return own | kept, description | settled


def taken_parts(weights: dict[str, Tensor], layer: int | list[int]) -> str:
    """What a run at `layer` takes of a search's checkpoint with these weights, and what it leaves, in words."""
    arms = sorted({int(name.split(".")[2]) for name in weights if name.startswith(COMPRESSORS)})
    shared = [name for name in weights if not name.startswith(COMPRESSORS)]
    adapted = any(map(is_adapter, shared))
    words = SHARED if adapted else (*SHARED[:-1], (SHARED[-1][0], "language model"))
    found = {next(word for begin, word in words if name.startswith(begin)) for name in shared if not is_adapter(name)}
    arms_taken = [f"compressor {arm}" for arm in layers_in(layer)]
    parts = [*arms_taken, *(["adapters"] if adapted else []), *(word for _, word in words if word in found)]
    left = ", ".join(str(arm) for arm in arms if arm not in layers_in(layer))
    return f"{', '.join(parts)}; the compressors of {left} are left"


def is_adapter(name: str) -> bool:
    """Whether a parameter's name is of one of an adapter, of whatever kind."""
    return ADAPTER.search(name) is not None
