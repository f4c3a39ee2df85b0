"""LLaMA in Meta's layout (consolidated.*.pth, params.json), and the published code's adapter checkpoints, as ours."""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from dvp.errors import UserError
from dvp.published.archive import Archive

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

# The published names of what is trained -> those of ScienceQAModel
ADAPTER = ((r"conv_A\.", "down."), (r"conv_B\.", "ups.0."), (r"conv_D\.", "ups.1."), (r"expert_weights\.", "router."))
TRAINED: tuple[tuple[str, str], ...] = (
    *(
        (rf"^layers\.(\d+)\.adapter_attn\.{old}", rf"llama.model.layers.\1.input_layernorm.adapter.{new}")
        for old, new in ADAPTER
    ),
    *(
        (
            rf"^backbone\.visual\.transformer\.resblocks\.(\d+)\.adapter_attn\.{old}",
            rf"vision.encoder.layers.\1.layer_norm1.adapter.{new}",
        )
        for old, new in ADAPTER
    ),
    (r"^adapter_proj\.conv_A\.", "projector.0."),
    (r"^adapter_proj\.conv_B\.", "projector.2."),
    (r"^adapter_modality_embedding\.", "modality."),
    (r"^image_params$", "slot"),
    (r"^cross_attn\.linear_(\w)", r"compressors.0.linear_\1"),
    (r"^cross_attn_options\.(\d+)\.linear_(\w)", r"compressors.\1.linear_\2"),
    *(
        (rf"\.linear_{old}\.", f".{new}.")
        for old, new in {"q": "query", "k": "key", "v": "value", "merge": "merge"}.items()
    ),
)


def load_llama(name_or_path: str, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """LLaMA with its head, from a folder in Meta's or the Hugging Face layout, or from a hub name.

    Raises UserError when weights are missing, misshapen or another family's.
    """
    folder = Path(name_or_path)
    if (folder / "params.json").is_file():
        return from_meta_state(*_read_shards(folder), dtype=dtype)
    try:
        model, report = LlamaForCausalLM.from_pretrained(
            name_or_path, dtype=dtype, attn_implementation="sdpa", output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"The language model {name_or_path!r} could not be read: {str(error).splitlines()[0]}"
        ) from error
    lacking = sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])])
    if lacking:
        raise UserError(
            f"The weights in {name_or_path} do not cover a LLaMA with its head: {', '.join(lacking[:5])} lacking."
        )
    return model


def from_meta_state(
    state: Mapping[str, Tensor], params: dict[str, Any], dtype: torch.dtype = torch.float32
) -> LlamaForCausalLM:
    """The model of a state dict with Meta's names and the sizes in `params` (dim, n_heads, norm_eps).

    Meta turns neighbouring pairs of a head, Hugging Face its two halves: the rows of q and k are put in that order.
    Raises UserError where names or shapes do not make a LLaMA.
    """
    renamed = {}
    for name, tensor in state.items():
        for pattern, new, _ in NAMES:
            if re.fullmatch(pattern, name):
                turned = name.endswith(("attention.wq.weight", "attention.wk.weight"))
                renamed[re.sub(pattern, new, name)] = _halves(tensor, params["n_heads"]) if turned else tensor
    wanted = ("model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight")
    if absent := [name for name in wanted if name not in renamed]:
        raise UserError(f"These are not the weights of a LLaMA in Meta's layout: {', '.join(absent)} is missing.")
    vocabulary, dim = renamed[wanted[0]].shape
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=dim,
        intermediate_size=len(renamed[wanted[1]]),
        num_hidden_layers=len({name.split(".")[2] for name in renamed if name.startswith("model.layers.")}),
        num_attention_heads=params["n_heads"],
        rms_norm_eps=params["norm_eps"],
        attn_implementation="sdpa",
    )
    model, report = LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=renamed, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
    )
    if faults := sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])]):
        layers = config.num_hidden_layers
        raise UserError(f"The weights lack parts of a LLaMA of {layers} layers: {', '.join(faults[:5])}.")
    return model


def read_published(path: str) -> dict[str, Tensor]:
    """The trained weights of a published checkpoint (.pth), renamed as by `rename_published`.

    They are the file's content or lie in it under "model", beside settings (args), optimizer, scaler and epoch. Raises
    UserError for a file that is damaged or holds no named tensors.
    """
    archive = Archive(path)
    content = archive.content
    weights = archive.tensors(content.get("model", content) if isinstance(content, Mapping) else None)
    if weights is None:
        raise UserError(f"{path} is no published checkpoint: it holds no named tensors. Give another file.")
    return rename_published(weights)


def rename_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained weights in a published state dict under the names of ScienceQAModel; the frozen ones are left out."""
    renamed = {}
    for name, tensor in state.items():
        old = new = name.removeprefix("module.")
        for pattern, replacement in TRAINED:
            new = re.sub(pattern, replacement, new)
        if new != old:
            # Linear layers stand there as convolutions of width 1, but for the grouped ones, which are such here, too.
            renamed[new] = tensor[..., 0] if tensor.ndim == 3 and ".down." in new else tensor
    return renamed


def _halves(rows: Tensor, heads: int) -> Tensor:
    """Rows (heads * 2d, D) of neighbouring pairs, reordered so that the first of all pairs come before the second."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _read_shards(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    params = json.loads((folder / "params.json").read_text(encoding="utf-8"))
    shards = [_read(path) for path in sorted(folder.glob("consolidated.*.pth"))]
    if not shards:
        raise UserError(f"{folder} has params.json but no consolidated.*.pth: put Meta's weights beside it.")
    state = {}
    for name in shards[0]:
        dims = [dim for pattern, _, dim in NAMES if re.fullmatch(pattern, name)]
        parts = [shard[name] for shard in shards]
        state[name] = torch.cat(parts, dims[0]) if len(parts) > 1 and dims and dims[0] is not None else parts[0]
    return state, params


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} cannot be read as a checkpoint of plain tensors: {error}") from error
