"""LLaMA in Meta's layout: consolidated.*.pth and params.json."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from dvp.errors import UserError
from dvp.files import read_json, require_fields

# Meta's names -> Hugging Face's. Several shards hold parts of a tensor, side by side along the dimension given.
NAMES: tuple[tuple[str, str, int | None], ...] = (
    (r"tok_embeddings\.weight", "model.embed_tokens.weight", 1),
    (r"norm\.weight", "model.norm.weight", None),
    (r"output\.weight", "lm_head.weight", 0),
    (r"layers\.(\d+)\.attention\.w([qkv])\.weight", r"model.layers.\1.self_attn.\2_proj.weight", 0),
    (r"layers\.(\d+)\.attention\.wo\.weight", r"model.layers.\1.self_attn.o_proj.weight", 1),
    (r"layers\.(\d+)\.feed_forward\.w1\.weight", r"model.layers.\1.mlp.gate_proj.weight", 0),
    (r"layers\.(\d+)\.feed_forward\.w2\.weight", r"model.layers.\1.mlp.down_proj.weight", 1),
    (r"layers\.(\d+)\.feed_forward\.w3\.weight", r"model.layers.\1.mlp.up_proj.weight", 0),
    (r"layers\.(\d+)\.attention_norm\.weight", r"model.layers.\1.input_layernorm.weight", None),
    (r"layers\.(\d+)\.ffn_norm\.weight", r"model.layers.\1.post_attention_layernorm.weight", None),
)


def is_meta_folder(folder: Path) -> bool:
    """Whether a folder is in Meta's layout; some in the Hugging Face layout have its params.json, too."""
    return (folder / "params.json").is_file() and not (folder / "config.json").is_file()


def load_meta(folder: Path, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """The model in a folder of Meta's; raises UserError when weights are missing, misshapen or no LLaMA's."""
    return from_meta_state(*_read_shards(folder), dtype=dtype)


def from_meta_state(
    state: Mapping[str, Tensor], params: dict[str, Any], dtype: torch.dtype = torch.float32
) -> LlamaForCausalLM:
    """The model of a state dict with Meta's names and the sizes in `params` (dim, n_heads, norm_eps).

    Meta turns neighbouring pairs of a head, Hugging Face its two halves: the rows of q and k are put in that order.
    Raises UserError where names or shapes do not make a LLaMA.
    """
    renamed = _renamed(state, params)
    config = _config(renamed, params)
    model, report = LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=renamed, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
    )
    if faults := sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])]):
        layers = config.num_hidden_layers
        raise UserError(
            f"The weights lack parts of a LLaMA of {layers} layers ({', '.join(faults[:5])}): copy them again."
        )
    return model


def meta_config(folder: Path) -> LlamaConfig:
    """The config of the model in a folder of Meta's, of the shapes of its weights, none of which is read."""
    state, params = _read_shards(folder, "meta")
    return _config(_renamed(state, params), params)


def _renamed(state: Mapping[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for pattern, new, _ in NAMES:
            if re.fullmatch(pattern, name):
                turned = name.endswith(("attention.wq.weight", "attention.wk.weight"))
                renamed[re.sub(pattern, new, name)] = _halves(tensor, params["n_heads"]) if turned else tensor
    return renamed


def _config(renamed: Mapping[str, Tensor], params: dict[str, Any]) -> LlamaConfig:
    wanted = ("model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight")
    if absent := [name for name in wanted if name not in renamed]:
        raise UserError(
            f"These are not the weights of a LLaMA in Meta's layout ({', '.join(absent)} is missing): copy them again."
        )
    vocabulary, dim = renamed[wanted[0]].shape
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=dim,
        intermediate_size=len(renamed[wanted[1]]),
        num_hidden_layers=len({name.split(".")[2] for name in renamed if name.startswith("model.layers.")}),
        num_attention_heads=params["n_heads"],
        rms_norm_eps=params["norm_eps"],
        attn_implementation="sdpa",
    )


def _halves(rows: Tensor, heads: int) -> Tensor:
    """Rows (heads * 2d, D) of neighbouring pairs, reordered so that the first of all pairs come before the second."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _read_shards(folder: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    params = read_json(folder / "params.json")
    require_fields(folder / "params.json", params, {"n_heads": int, "norm_eps": float}, "copy it again")
    shards = [_read(path, device) for path in sorted(folder.glob("consolidated.*.pth"))]
    if not shards:
        raise UserError(f"{folder} has params.json but no consolidated.*.pth: put Meta's weights beside it.")
    state = {}
    for name in shards[0]:
        dims = [dim for pattern, _, dim in NAMES if re.fullmatch(pattern, name)]
        parts = [shard[name] for shard in shards]
        state[name] = torch.cat(parts, dims[0]) if len(parts) > 1 and dims and dims[0] is not None else parts[0]
    return state, params


def _read(path: Path, device: str) -> dict[str, Tensor]:
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path} cannot be read as Meta's weights, tensors alone ({str(error).splitlines()[0]}): copy it again."
        ) from error
