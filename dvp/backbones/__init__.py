"""The language models, by the `model_type` in their config.json: a kind of model, and the row of a family."""

import importlib.util
import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from dvp.backbones.base import LanguageBackbone, State
from dvp.backbones.decoder import Decoder
from dvp.backbones.encoder import Encoder
from dvp.backbones.encoder_decoder import EncoderDecoder
from dvp.backbones.meta import is_meta_folder, load_meta, meta_config
from dvp.backbones.tokenizer_files import vocabulary_file
from dvp.errors import UserError
from dvp.families import FAMILIES, require_family
from dvp.files import is_path

__all__ = ["BACKBONES", "LanguageBackbone", "State", "family_of", "load_backbone", "load_with_head"]

KINDS: dict[str, type[LanguageBackbone]] = {
    "encoder": Encoder,
    "encoder_decoder": EncoderDecoder,
    "decoder": Decoder,
}
BACKBONES: dict[str, type[LanguageBackbone]] = {
    family: type(family.capitalize(), (row, KINDS[row.kind]), {}) for family, row in FAMILIES.items()
}

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


def family_of(name_or_path: str) -> str:
    """The key in BACKBONES of a folder or hub name, read from its config.json.

    Raises UserError for a folder without config, weights or tokenizer, a hub name that is not at hand, an unknown
    family.
    """
    folder = Path(name_or_path)
    if is_meta_folder(folder):
        return "llama"
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{name_or_path} has no config.json: give a folder in the Hugging Face format.")
        if not any(next(folder.glob(pattern), None) for pattern in WEIGHT_FILES):
            raise UserError(
                f"{name_or_path} holds no weights (model.safetensors or pytorch_model*.bin): "
                "put them beside its config.json."
            )
    elif is_path(name_or_path):
        raise UserError(f"There is no folder {name_or_path}: give a folder or a Hugging Face hub name.")
    try:
        config = AutoConfig.from_pretrained(name_or_path).to_dict()
    except (OSError, ValueError) as error:
        raise UserError(
            f"The language model {name_or_path!r} could not be read ({str(error).splitlines()[0]}); without network, "
            f"copy its folder (config.json, tokenizer files, weights) here and pass tokenizer=./{folder.name}."
        ) from error
    family = require_family(config, name_or_path)
    if folder.is_dir():
        vocabulary_file(name_or_path, BACKBONES[family].vocabulary)
    return family


def load_backbone(name_or_path: str, *, as_published: bool = False, **options: Any) -> LanguageBackbone:
    """The language model of a folder or hub name, weights and all. options: those of `_load`.

    Raises UserError for weights that cannot be read or do not cover the model, and for `quantize` without bitsandbytes.
    """
    backbone = BACKBONES[family_of(name_or_path)]
    return backbone(_load(backbone, name_or_path, backbone.model_class, **options), as_published)


def load_with_head(
    name_or_path: str, *, as_published: bool = False, **options: Any
) -> tuple[LanguageBackbone, nn.Module]:
    """The same, and the language model's own head, which maps hidden states to the vocabulary."""
    backbone = BACKBONES[family_of(name_or_path)]
    if backbone.headed is None:
        having = ", ".join(name for name, row in FAMILIES.items() if row.headed)
        raise UserError(f"{name_or_path} does not write texts here: give a model of {having}.")
    model = _load(backbone, name_or_path, backbone.headed_class, **options)
    return backbone(model.get_decoder(), as_published), model.get_output_embeddings()


def _load(
    backbone: type[LanguageBackbone],
    name_or_path: str,
    model_class: type[PreTrainedModel],
    *,
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
    gradient_checkpointing: bool = False,
    empty: bool = False,
) -> PreTrainedModel:
    """The model in `dtype`, or in 8 or 4 bits (NF4).

    gradient_checkpointing: compute layers again in the backward pass. empty: shapes alone, on torch's meta device, as
    the folder's config tells them; then nothing is quantized.
    """
    if empty:
        config = meta_config(Path(name_or_path)) if is_meta_folder(Path(name_or_path)) else _config_of(name_or_path)
        with torch.device("meta"):
            return model_class._from_config(
                config, dtype=dtype, attn_implementation=backbone.attention, **backbone.model_options
            )
    if is_meta_folder(Path(name_or_path)):
        if quantize:
            raise UserError(
                f"quantize={quantize} needs a Hugging Face folder, and {name_or_path} is in Meta's layout: give such a "
                "folder, or leave quantize out."
            )
        model = load_meta(Path(name_or_path), dtype)
        model = model if isinstance(model, model_class) else model.get_decoder()
    else:
        options = backbone.model_options | {"attn_implementation": backbone.attention}
        model = _from_huggingface(name_or_path, model_class, options, dtype, quantize)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()  # it comes in eval mode, without dropout and checkpointing


def _from_huggingface(
    name_or_path: str,
    model_class: type[PreTrainedModel],
    model_options: dict[str, Any],
    dtype: torch.dtype,
    quantize: str | None,
) -> PreTrainedModel:
    config = _config_of(name_or_path)
    options: dict[str, Any] = model_options | {"config": config, "dtype": dtype}
    if quantize:
        options["quantization_config"] = _bits(quantize, dtype)
    elif dtype.itemsize == 2:
        # Loaded as stored, and so memory-mapped: cast while loading, files and result would both take their place.
        config.dtype = None  # of the files then, which may differ from what config.json says
        options["dtype"] = "auto"
    try:
        model, report = model_class.from_pretrained(name_or_path, output_loading_info=True, **options)
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"The weights in {name_or_path} cannot be read ({error}): copy them again.") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        lacking = sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])])
        raise UserError(
            f"The weights in {name_or_path} do not cover the model ({', '.join(lacking[:5])} ... lacking): copy them "
            "and config.json again."
        )
    if options["dtype"] == "auto":
        _cast(model, dtype)
    if quantize:
        _hold_still(model)
    return model


def _config_of(name_or_path: str) -> PreTrainedConfig:
    config = AutoConfig.from_pretrained(name_or_path)
    if config.pad_token_id is not None and not 0 <= config.pad_token_id < config.vocab_size:
        config.pad_token_id = None  # public folders name one that the embedding table lacks, such as -1
    return config


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast all parameters one by one, in their own place where the sizes agree; a file's mapping is copied on write."""
    for parameter in model.parameters():
        cast = parameter.data.to(dtype)
        same = parameter.dtype.itemsize == dtype.itemsize
        parameter.data = parameter.data.view(dtype).copy_(cast) if same else cast


def _bits(quantize: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"quantize={quantize} needs bitsandbytes: pip install bitsandbytes.")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells what it casts in every product
    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return BitsAndBytesConfig(**{f"load_in_{quantize}": True}, **four)


def _hold_still(model: nn.Module) -> None:
    """Have what bitsandbytes made stay as it is, so that a checkpoint's fingerprint of it does.

    Else it casts the biases in place to the type of what comes in, and on CPUs that multiply in bf16 reorders weights
    of 4 bit in the first pass without gradients.
    """
    for module in model.modules():
        if type(module).__module__.startswith("bitsandbytes") and module.bias is not None:
            module.bias.data = module.bias.data.bfloat16().to(module.bias.dtype)
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
