"""What of a run's settings changes the function that its checkpoints hold, and what a checkpoint settles for a run."""

from typing import Any

import torch
from torch import nn

from dvp.checkpoints import read_description
from dvp.errors import UserError
from dvp.families import family_named
from dvp.files import is_published
from dvp.runs.devices import precision_of

SETTINGS = ("num_heads", "prompt_tokens", "image_size", "turn_pictures", "max_text_len", "quantize")


def described_by(config: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """What a checkpoint's description tells of the settings, and of a DVP model's compressors and adapters."""
    told = {key: config[key] for key in SETTINGS} | {"blind": config["image_tokens"] == "zero"}
    told["backbone_dtype"] = str(backbone_dtype(config)).removeprefix("torch.")
    told["compressor_width"] = _width(model, "compressors.0.query.weight")
    told["adapter_width"] = _width(model, ".adapter.down.weight")
    return told | model.backbone.adapted


def backbone_dtype(config: dict[str, Any]) -> torch.dtype:
    """The type of the language model's weights: as configured, as in the checkpoint to load, or as `auto` chooses.

    Raises UserError for 16 bit where the language model is trained.
    """
    wanted = config["backbone_dtype"]
    if wanted == "auto":
        wanted = _dtype_beside(config) or _auto_dtype(config)
    if wanted == "bfloat16" and not config["use_adapter"]:
        raise UserError("backbone_dtype=bfloat16 is for a frozen language model: add use_adapter=True or take float32.")
    return getattr(torch, wanted)


def _width(model: nn.Module, name: str) -> int | None:
    return next((len(weight) for found, weight in model.named_parameters() if found.endswith(name)), None)


def _auto_dtype(config: dict[str, Any]) -> str:
    frozen = config["use_adapter"] and precision_of(config) != "32-true"
    return family_named(config["language_model"]).frozen_dtype if frozen else "float32"


def _dtype_beside(config: dict[str, Any]) -> str | None:
    """The type that the checkpoint to load was trained beside: another precision must not mean another base."""
    path = config["resume_from"] or config["load_path"]
    if not path or is_published(path) or not config["use_adapter"]:
        return None
    description = read_description(path)
    if "backbone_dtype" in description:
        return description["backbone_dtype"]
    then = description.get("config")  # older than format 1
    if not then:
        return None
    return _auto_dtype(then) if then["backbone_dtype"] == "auto" else then["backbone_dtype"]
