"""What an export holds of the language model: PEFT's adapters as its tools open them, the base, or both merged."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dvp.adapters import ADAPTERS, Injected
from dvp.backbones import BACKBONES, family_of
from dvp.backbones.tokenizer_files import FALLBACK, SETTINGS, find_file, vocabulary_file
from dvp.checkpoints import fingerprint, save_tensors
from dvp.errors import UserError
from dvp.model import DVP

Parts = tuple[dict[str, Tensor], dict[str, Any]]

INSIDE = "model.backbone.model."  # how the names of what is trained of it begin
WORDS = ("*.json", "*.txt", "*.model")  # of a language model's folder, beside its weights
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")  # the first kind that there is
ADAPTED = ("adapter_targets", "adapter_rank", "lora_alpha")  # what a description tells of PEFT's


def write_adapter(place: Path, weights: dict[str, Tensor], description: dict[str, Any], source: str, name: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors of PEFT's adapters; nothing where there are others.

    They hold the norms that were trained beside them, too. source: the language model's folder or hub name; name: what
    it is called there.
    """
    row = ADAPTERS.get(description.get("use_adapter"))
    if not isinstance(row, Injected):
        return
    place.mkdir()
    inside = {key.removeprefix(INSIDE): one for key, one in weights.items() if key.startswith(INSIDE)}
    told = {key: description[key] for key in ADAPTED if key in description}
    row.write_config(place, inside, told, family_of(source), name)
    save_tensors(row.saved(inside), place / "adapter_model.safetensors")


def merge(model: DVP, weights: dict[str, Tensor], description: dict[str, Any]) -> Parts:
    """The weights and the description of a checkpoint whose adapters and norms have become its language model's.

    That stands in `model`, changed; all of it is frozen then.
    """
    kind = description["use_adapter"]
    ADAPTERS[kind].merge(model.backbone.model)
    model.backbone.to(getattr(torch, description["backbone_dtype"]))
    kept = {name: one for name, one in weights.items() if not name.startswith(INSIDE)}
    told = {key: value for key, value in description.items() if key not in ADAPTED}
    return kept, told | {
        "use_adapter": "frozen",
        "merged": kind,
        "frozen": fingerprint(model, frozen=lambda name: name.startswith(("backbone.", "vision."))),
        "config": description["config"] | {"use_adapter": "frozen"},
    }


def write_merged(place: Path, model: DVP, source: str) -> None:
    """Write the language model as it stands, with its tokenizer, as a plain folder of transformers."""
    model.backbone.model.save_pretrained(place)
    _copy_words(place, source, "special_tokens_map.json", "added_tokens.json")


def copy_language_model(place: Path, source: str) -> None:
    """Copy the frozen language model; raises UserError for one in Meta's layout."""
    model = Path(source).expanduser() if Path(source).expanduser().is_dir() else find_file(source, "config.json").parent
    if not (model / "config.json").is_file():
        raise UserError(
            f"{source} is in Meta's layout, of which with_base=True takes no copy: leave it out, or give a folder in "
            "the Hugging Face format."
        )
    place.mkdir()
    kinds = [sorted(model.glob(pattern)) for pattern in WEIGHT_FILES]
    for file in [*(path for pattern in WORDS for path in sorted(model.glob(pattern))), *next(filter(None, kinds))]:
        shutil.copy(file, place / file.name)


def copy_tokenizer(place: Path, source: str) -> None:
    """Copy the tokenizer's files where their licence lets anyone hand them on."""
    if BACKBONES[family_of(source)].free_vocabulary:
        _copy_words(place, source)


def _copy_words(place: Path, source: str, *more: str) -> None:
    own = vocabulary_file(source, BACKBONES[family_of(source)].vocabulary).name
    for name in dict.fromkeys((own, FALLBACK, SETTINGS, *(["merges.txt"] if own == "vocab.json" else []), *more)):
        if found := find_file(source, name):
            shutil.copy(found, place / name)
