"""CLIP's image encoder as `transformers.CLIPVisionModel`, from OpenAI's archives and state dicts like theirs."""

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
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedModel
from transformers.utils import logging

from dvp.errors import UserError

# OpenAI's archives and their sha256, which is also a part of their address
OPENAI_SHA256 = {
    "ViT-B/32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B/16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L/14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
}
OPENAI_NAMES = ", ".join(OPENAI_SHA256)
RESNET = re.compile(r"RN\d+(x\d+)?")

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


def is_openai(name_or_path: str) -> bool:
    """Whether `load` takes this: one of OpenAI's names, or a file."""
    path = Path(name_or_path).expanduser()
    return name_or_path in OPENAI_SHA256 or path.is_file() or bool(RESNET.fullmatch(name_or_path)) and not path.exists()


def load(name_or_path: str) -> CLIPVisionModel:
    """The image encoder in float32, in eval mode and without gradients.

    `name_or_path` is one of OpenAI's names (its archive then lies in ~/.cache/clip, where OpenAI's package puts it; its
    sha256 is checked), or the path of such an archive or of a state dict with its names. Raises UserError for anything
    else, for incomplete or damaged weights, and for CLIP's ResNets.
    """
    if name_or_path in OPENAI_SHA256:
        return from_openai_state(read_archive(_official_archive(name_or_path)))
    if RESNET.fullmatch(name_or_path) and not Path(name_or_path).exists():
        raise UserError(f"{name_or_path} is a ResNet, which has no patch tokens: take one of {OPENAI_NAMES}.")
    return from_openai_state(read_archive(Path(name_or_path).expanduser()))


def from_openai_state(
    state: Mapping[str, Tensor], heads: int | None = None, activation: str = "quick_gelu", epsilon: float = 1e-5
) -> CLIPVisionModel:
    """The image encoder of an OpenAI state dict, its sizes read from the tensors, in float32, frozen as by `load`.

    `heads` defaults to width / 64, as in all of OpenAI's, and so do activation and the norms' epsilon. The names may
    stand under "visual." (the rest of the state is then ignored) or bare. Raises UserError where a tensor is missing,
    misshapen or left over, and for a ResNet.
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
        hidden_act=activation,
        layer_norm_eps=epsilon,
    )
    weights = {"config": config, "state_dict": _huggingface_names(visual)}
    return fill(CLIPVisionModel, "the state dict", leftovers=False, **weights)


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


def fill(model: type[PreTrainedModel], source: str, leftovers: bool, **weights: Any) -> PreTrainedModel:
    """The frozen model, after a check that `weights` fill it exactly; `leftovers` says that more may stand in them.

    weights: what `from_pretrained` of the class is to read. Raises UserError, with `source`, where they do not, or
    cannot be read.
    """
    weights = {"pretrained_model_name_or_path": None} | weights
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its report lists the whole text half as unexpected; what matters is checked below
    try:
        filled, info = model.from_pretrained(
            **weights, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
        )
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"The encoder's weights cannot be read from {source} ({error}): copy them again.") from error
    finally:
        logging.set_verbosity(verbosity)
    faults = [f"{name} is missing" for name in sorted(info["missing_keys"])]
    faults += [f"{name} is {tuple(got)}, not {tuple(want)}" for name, got, want in sorted(info["mismatched_keys"])]
    faults += [f"{name} is left over" for name in sorted(info["unexpected_keys"]) if not leftovers]
    if faults:
        raise UserError(
            f"The encoder's weights in {source} do not fit its sizes: {'; '.join(faults[:5])} ({len(faults)} in all): "
            "copy them and their config.json again."
        )
    return filled.eval().requires_grad_(False)


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


def read_archive(path: Path) -> Mapping[str, Tensor]:
    """The tensors of one of OpenAI's archives or of a state dict; raises UserError for any other file."""
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
