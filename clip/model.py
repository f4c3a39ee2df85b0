"""CLIP's image encoder as `transformers.CLIPVisionModel`, from a Hugging Face folder or from OpenAI's own archives."""

import hashlib
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.utils import logging

from dvp.errors import UserError

# OpenAI's archives and their sha256, which is also a part of their address
OPENAI_SHA256 = {
    "ViT-B/32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B/16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L/14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
}
OPENAI_NAMES = ", ".join(OPENAI_SHA256)

# OpenAI's names -> Hugging Face's, applied in this order
RENAMES = (
    (r"^class_embedding$", "embeddings.class_embedding"),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^conv1\.", "embeddings.patch_embedding."),
    (r"^ln_pre\.", "pre_layrnorm."),  # spelled so in transformers
    (r"^ln_post\.", "post_layernorm."),
    (r"^transformer\.resblocks\.", "encoder.layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.", ".self_attn."),
)


def load(name_or_path: str) -> CLIPVisionModel:
    """The image encoder in float32, in eval mode and without gradients.

    `name_or_path` is one of OpenAI's names (its archive then lies in ~/.cache/clip, where OpenAI's package puts it; its
    sha256 is checked), the path of such an archive or of a state dict with its names, a Hugging Face folder, or a name
    on the hub. Raises UserError for anything else, for incomplete or damaged weights, and for CLIP's ResNets.
    """
    path = Path(name_or_path).expanduser()
    if name_or_path in OPENAI_SHA256:
        return from_openai_state(_read_archive(_official_archive(name_or_path)))
    if re.fullmatch(r"RN\d+(x\d+)?", name_or_path) and not path.exists():
        raise UserError(f"{name_or_path} is a ResNet, which has no patch tokens: take one of {OPENAI_NAMES}.")
    if path.is_file():
        return from_openai_state(_read_archive(path))
    return _from_huggingface(str(path) if path.is_dir() else name_or_path)


def count_blocks(name_or_path: str) -> int:
    """The number of transformer blocks of what `load` would load, without loading it where its config tells."""
    path = Path(name_or_path).expanduser()
    if name_or_path in OPENAI_SHA256 or path.is_file():
        return load(name_or_path).config.num_hidden_layers
    name = _with_config(str(path) if path.is_dir() else name_or_path)
    return CLIPVisionConfig.from_pretrained(name).num_hidden_layers


def from_openai_state(state: Mapping[str, Tensor], heads: int | None = None) -> CLIPVisionModel:
    """The image encoder of an OpenAI state dict, its sizes read from the tensors, in float32, frozen as by `load`.

    `heads` defaults to width / 64, as in all of OpenAI's. The names may stand under "visual." (the rest of the state is
    then ignored) or bare. Raises UserError where a tensor is missing, misshapen or left over, and for a ResNet.
    """
    visual = {name[7:]: tensor for name, tensor in state.items() if name.startswith("visual.")} or dict(state)
    if any(name.startswith("layer1.") for name in visual):
        raise UserError(f"These weights are a CLIP ResNet's, which has no patch tokens: take one of {OPENAI_NAMES}.")
    needed = ("conv1.weight", "positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight")
    if absent := [name for name in needed if name not in visual]:
        raise UserError(
            f"These are not the weights of a CLIP vision transformer ({', '.join(absent)} is missing): take one of "
            f"{OPENAI_NAMES}."
        )
    if visual["conv1.weight"].ndim != 4:
        raise UserError(
            f"CLIP's conv1.weight has the shape {tuple(visual['conv1.weight'].shape)}, not 4 axes: copy the file again."
        )
    width, _, patch, _ = visual["conv1.weight"].shape
    heads = heads or width // 64
    if not heads or width % heads:
        raise UserError(f"A CLIP of width {width} cannot have {heads} heads: name a number that divides the width.")
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=len(visual["transformer.resblocks.0.mlp.c_fc.weight"]),
        num_hidden_layers=len({name.split(".")[2] for name in visual if name.startswith("transformer.resblocks.")}),
        num_attention_heads=heads,
        patch_size=patch,
        image_size=math.isqrt(len(visual["positional_embedding"]) - 1) * patch,  # one row is the class token's
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
    )
    return _build("the state dict", leftovers=False, config=config, state_dict=_huggingface_names(visual))


def _huggingface_names(visual: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in visual.items():
        if name == "proj":  # the projection into the space shared with text, which no token passes
            continue
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        if ".in_proj_" in name:
            for part, piece in zip("qkv", tensor.tensor_split(3), strict=True):  # (3D, D) or (3D)
                renamed[name.replace("in_proj_", f"{part}_proj.")] = piece
        else:
            renamed[name] = tensor
    return renamed


def _from_huggingface(name: str) -> CLIPVisionModel:
    return _build(_with_config(name), leftovers=True, pretrained_model_name_or_path=name)


def _with_config(name: str) -> str:
    """The name, after a check that a CLIP's config.json is there."""
    try:
        settings, _ = CLIPVisionConfig.get_config_dict(name)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"No CLIP model {name} here or on the Hugging Face hub ({reason}): give one of {OPENAI_NAMES}, the path of "
            "OpenAI's archive, or a folder with CLIP's config.json and weights (where there is network, "
            "`hf download openai/clip-vit-base-patch16 --local-dir FOLDER` makes one)."
        ) from error
    if settings.get("model_type") not in ("clip", "clip_vision_model"):
        found = settings.get("model_type")
        raise UserError(f"{name} has no config.json of a CLIP model (model_type: {found}): give the folder of one.")
    return name


def _build(source: str, leftovers: bool, **weights: Any) -> CLIPVisionModel:
    """The frozen model, after a check that `weights` fill it exactly; `leftovers` says that more may stand in them."""
    weights = {"pretrained_model_name_or_path": None} | weights
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its report lists the whole text half as unexpected; what matters is checked below
    try:
        model, info = CLIPVisionModel.from_pretrained(
            **weights, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
        )
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"CLIP's weights cannot be read from {source} ({error}): copy them again.") from error
    finally:
        logging.set_verbosity(verbosity)
    faults = [f"{name} is missing" for name in sorted(info["missing_keys"])]
    faults += [f"{name} is {tuple(got)}, not {tuple(want)}" for name, got, want in sorted(info["mismatched_keys"])]
    faults += [f"{name} is left over" for name in sorted(info["unexpected_keys"]) if not leftovers]
    if faults:
        raise UserError(
            f"CLIP's weights in {source} do not fit its sizes: {'; '.join(faults[:5])} ({len(faults)} in all): "
            "copy them and their config.json again."
        )
    return model.eval().requires_grad_(False)


def _official_archive(name: str) -> Path:
    path = Path("~/.cache/clip").expanduser() / f"{name.replace('/', '-')}.pt"
    sha256 = OPENAI_SHA256[name]
    if not path.is_file():
        raise UserError(
            f"{path} is missing: put https://openaipublic.azureedge.net/clip/models/{sha256}/{path.name} there, "
            "or give the path of the archive or a Hugging Face folder of CLIP."
        )
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise UserError(f"{path} is not OpenAI's {name}: its sha256 is not {sha256}; fetch it again.")
    return path


def _read_archive(path: Path) -> Mapping[str, Tensor]:
    try:
        if _is_torchscript(path):
            # Not a pickle: the code in it is for TorchScript's interpreter, and is not called here.
            return torch.jit.load(path, map_location="cpu").state_dict()
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path} is neither OpenAI's archive nor a state dict of tensors, or it is truncated: copy it again."
        ) from error
    if not isinstance(state, Mapping):
        raise UserError(f"{path} holds a {type(state).__name__}, not a state dict: give OpenAI's archive.")
    return state


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
