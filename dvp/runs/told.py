"""What a checkpoint tells of the settings of a run on it. Torch is not imported for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvp.errors import UserError
from dvp.families import tokenizer_of
from dvp.files import EXPORTED, description_name, is_path, read_description
from dvp.runs.reach import holds_no_model, require_reach

# What the checkpoint's function is: typed otherwise, a run is refused.
AGREED = (
    "language_model", "search_stage", "insert_layer", "use_adapter", "num_heads", "prompt_tokens", "max_text_len",
    "image_size", "turn_pictures", "quantize", "prompt_format", "use_caption", "as_published", "adapter_rank",
    "adapter_targets", "lora_alpha",
)  # fmt: skip
# What else a run has where nothing is typed: where the frozen weights lay, how it was named and computed.
PLACES = ("tokenizer", "clip_model")
VOCABULARIES = ("vocab.txt", "spiece.model")  # the tokenizers' files that decide alone and may be handed on
TAKEN = (*PLACES, "exp_name", "seed", "kab", "precision", "image_tokens", "per_gpu_batchsize")


def settings_told(path: str, on_gpu: bool) -> dict[str, Any]:
    """The settings of a run on a checkpoint folder where nothing else is said; of an older one those that it knows.

    Raises UserError for a folder that is no checkpoint, or damaged.
    """
    description = read_description(path)
    then = description.get("config") or {}  # older than format 1, it may have none
    told = {key: then[key] for key in (*AGREED, *TAKEN) if key in then}
    told |= {key: description[key] for key in AGREED if key in description}
    told["datasets"], told["language_model"] = [description["task"]], description["language_model"].upper()
    if told.get("insert_layer") is None:  # a search's, which may also be tested at the one that it found
        told["insert_layer"] = "auto"
    told |= {key: str(Path(path) / place) for key, place in description.get("base_included", {}).items()}
    if description.get("blind"):
        told["image_tokens"] = "zero"
    if told.get("precision") == 16 and not on_gpu:
        told["precision"] = "auto"
    return told


def base_of(path: str, tokenizer: Any, clip_model: Any) -> dict[str, str]:
    """Where these settings say that the base of a checkpoint lies; a placeholder stands for the checkpoint's family."""
    if Path(path).is_dir():
        tokenizer = tokenizer_of(str(tokenizer), read_description(path)["language_model"])
    return {"tokenizer": str(tokenizer), "clip_model": str(clip_model)}


def require_base(path: str, config: Mapping[str, Any]) -> None:
    """Raise UserError, with all that is not there, where base weights that the checkpoint or a setting names are not.

    And where its tokenizer has another vocabulary than the one that an exported checkpoint brings along.
    """
    missing = {key: str(config[key]) for key in PLACES if holds_no_model(str(config[key]))}
    if missing:
        places = " and ".join(f"{key}={place}" for key, place in missing.items())
        keys = " and ".join(f"{key}=" for key in missing)
        raise UserError(f"{path} needs {places}, where no model is: say with {keys} where that lies now.")
    if Path(path).is_dir():
        require_reach(str(config["tokenizer"]))
    for name in VOCABULARIES if description_name(Path(path)) == EXPORTED else ():
        there, here = Path(path) / name, Path(str(config["tokenizer"])).expanduser() / name
        if there.is_file() and here.is_file() and there.read_bytes() != here.read_bytes():
            raise UserError(
                f"{here} is not the vocabulary that {path} was trained with: give the tokenizer that has it."
            )


def place_named(place: str) -> str:
    """What to call the place of a base elsewhere: a hub name as it is, a folder or file by its own name alone."""
    path = Path(place).expanduser()
    return f"./{path.resolve().name}" if path.exists() or is_path(place) else place


def refuse_other_settings(path: str, told: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise UserError with the settings of a checked config that differ from what its checkpoint told."""
    there = {key: told[key] for key in AGREED if told.get(key) != "auto" and key in told}
    there["datasets"] = told["datasets"][0]
    if there.get("search_stage"):  # it has a compressor for each layer, so that one of them can be tested alone
        del there["search_stage"]
    differing = [key for key, value in there.items() if config[key] not in (value, "auto")]
    if differing:
        listed = "; ".join(f"{key} is {there[key]} there and {config[key]} here" for key in differing)
        right = " ".join(f"{key}={there[key]}" for key in differing)
        raise UserError(
            f"The checkpoint {path} belongs to another run: {listed}. Type {right}, or leave these settings out."
        )
