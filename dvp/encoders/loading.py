"""Image encoders as models: found by folder, hub name or OpenAI's name, loaded exactly, and what they are."""

import json
from functools import partial
from pathlib import Path

import transformers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PretrainedConfig, PreTrainedModel

from dvp.encoders import openai
from dvp.encoders.folder import Told, read_folder, unknown
from dvp.encoders.open_clip import WEIGHTS
from dvp.encoders.rows import ENCODERS, Encoder
from dvp.errors import UserError

NOT_THE_MODEL = ("_name_or_path", "architectures", "attn_implementation", "dtype", "transformers_version")


def find_encoder(name_or_path: str) -> Told:
    """What is known of an encoder before its weights are read. Raises UserError for one that is not there or no row's.

    `name_or_path` is a folder of transformers' or open_clip's, a name on the hub, or what `dvp.encoders.openai` loads.
    """
    if openai.is_openai(name_or_path):
        row = ENCODERS["clip_vision_model"]
        return Told(row, {}, row.prepared)
    told = read_folder(name_or_path, partial(_find, name_or_path))
    if told is None and Path(name_or_path).expanduser().is_dir():
        raise unknown(name_or_path, None)
    if told is None:
        raise UserError(
            f"No image encoder {name_or_path} here or on the Hugging Face hub: give one of {openai.OPENAI_NAMES}, the "
            "path of OpenAI's archive, or a folder with config.json and weights (where there is network, "
            "`hf download openai/clip-vit-base-patch16 --local-dir FOLDER` makes one)."
        )
    return told


def load_encoder(name_or_path: str) -> PreTrainedModel:
    """The image encoder in float32, in eval mode and without gradients.

    Raises UserError as `find_encoder` does, and for weights that are incomplete, damaged or of another size.
    """
    told = find_encoder(name_or_path)
    if openai.is_openai(name_or_path):
        return openai.load(name_or_path)
    if told.open_clip:
        return _from_open_clip(name_or_path, told)
    name, config = _place(name_or_path), _config(name_or_path, told.row)
    model = getattr(transformers, told.row.model)
    return openai.fill(model, name, leftovers=True, pretrained_model_name_or_path=name, config=config)


def count_blocks(name_or_path: str) -> int:
    """The number of transformer blocks of what `load_encoder` would load, without loading it where its files tell."""
    if openai.is_openai(name_or_path):
        return openai.load(name_or_path).config.num_hidden_layers
    told = find_encoder(name_or_path)
    return told.settings["num_hidden_layers"] if told.open_clip else _config(name_or_path, told.row).num_hidden_layers


def row_of(config: PretrainedConfig) -> Encoder:
    """The row of a loaded encoder."""
    return ENCODERS[config.model_type]


def prefix_tokens(config: PretrainedConfig) -> int:
    """How many tokens stand before those of the patches: the class token, where there is one, then registers."""
    return row_of(config).class_token + getattr(config, "num_register_tokens", 0)


def count_tokens(config: PretrainedConfig, image_size: int) -> int:
    """The number N of tokens of a picture of so many pixels."""
    return prefix_tokens(config) + (image_size // config.patch_size) ** 2


def arithmetic(config: PretrainedConfig) -> str:
    """What beside weights and pictures decides an encoder's tokens: a part of the name of a cache of them.

    Nothing of CLIP as OpenAI published it, of which there are caches without it.
    """
    if row_of(config).name == "CLIP" and config.hidden_act == "quick_gelu":
        return ""
    settings = {key: value for key, value in config.to_dict().items() if key not in NOT_THE_MODEL}
    return json.dumps(settings, sort_keys=True, default=str)


def _config(name_or_path: str, row: Encoder) -> PretrainedConfig:
    """The settings of the image half, without what no token passes."""
    config = getattr(transformers, row.model).config_class.from_pretrained(_place(name_or_path))
    for key, value in row.without.items():
        setattr(config, key, value)
    return config


def _from_open_clip(name_or_path: str, told: Told) -> PreTrainedModel:
    path = next(filter(None, (_find(name_or_path, file) for file in WEIGHTS)), None)
    if path is None:
        raise UserError(f"{name_or_path} has none of {', '.join(WEIGHTS)}: put the weights beside its JSON file.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else openai.read_archive(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}): copy it again.") from error
    heads, activation, epsilon = (told.settings[key] for key in ("num_attention_heads", "hidden_act", "layer_norm_eps"))
    return openai.from_openai_state(state, heads, activation, epsilon)


def _place(name_or_path: str) -> str:
    """The path of a folder, or a name on the hub."""
    path = Path(name_or_path).expanduser()
    return str(path) if path.is_dir() else name_or_path


def _find(name_or_path: str, file: str) -> Path | None:
    """Where a file of a folder or hub name lies; None where there is no such file, or none is at hand."""
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    try:
        return Path(hf_hub_download(name_or_path, file))
    except (EntryNotFoundError, HFValidationError):  # the latter: a path where nothing is
        return None
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"The image encoder {name_or_path} could not be read ({str(error).splitlines()[0]}): give a folder that "
            "is here, or the name of a model on the hub."
        ) from error
