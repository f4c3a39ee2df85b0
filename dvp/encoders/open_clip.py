"""A folder of the package open_clip: what its JSON file says of the image half, in the words of transformers."""

from pathlib import Path
from typing import Any

from PIL import Image

from dvp.errors import UserError

OPEN_CLIP = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
USUAL = {"layers": 12, "width": 768, "head_width": 64, "patch_size": 16, "image_size": 224}  # in open_clip
# What no token meets outside of training, or what is in the weights; anything else in vision_cfg changes the tokens.
WITHOUT_EFFECT = {
    "mlp_ratio", "patch_dropout", "pool_type", "final_ln_after_pool", "output_tokens", "pos_embed_type",
    "attn_pooler_queries", "attn_pooler_heads", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias",
    "timm_drop", "timm_drop_path",
}  # fmt: skip
RESAMPLE = {"bilinear": Image.Resampling.BILINEAR.value}  # else bicubic


def read_open_clip(path: Path, content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the image half, and what becomes of pictures, as a preprocessor_config.json says it.

    Raises UserError for an image half that is no plain vision transformer, timm's among them.
    """
    model, pictures = content.get("model_cfg"), content.get("preprocess_cfg") or {}
    tower = model.get("vision_cfg") if isinstance(model, dict) else None
    if not isinstance(tower, dict) or not isinstance(pictures, dict):
        raise UserError(f"{path} has no model_cfg with a vision_cfg: copy it from open_clip's folder again.")
    sizes, norm, act = USUAL | tower, tower.get("norm_kwargs") or {}, tower.get("act_kwargs") or {}
    known = {*USUAL, *WITHOUT_EFFECT, "norm_kwargs", "act_kwargs"}
    other = [key for key, value in tower.items() if key not in known and value not in (None, False, "default")]
    other += [f"norm_kwargs.{key}" for key in norm if key != "eps"]
    other += [f"act_kwargs.{key}" for key in act if key != "approximate"]
    if tower.get("timm_model_name"):
        raise UserError(
            f"{path} names {tower['timm_model_name']} of timm, whose layout is not read here: take a CLIP whose "
            "vision_cfg has layers and width, or the same model in transformers' layout, as google/siglip-* is."
        )
    wrong = [f"{key}={sizes[key]}" for key in USUAL if type(sizes[key]) is not int or sizes[key] <= 0]
    if other or wrong:
        raise UserError(
            f"{path} is of no plain vision transformer ({', '.join(wrong + other)}): take a CLIP whose vision_cfg has "
            "layers, width and patch_size alone, such as ViT-B-16 or ViT-L-14-336."
        )
    if model.get("quick_gelu"):
        activation = "quick_gelu"
    else:
        activation = "gelu_pytorch_tanh" if act.get("approximate") == "tanh" else "gelu"
    settings = {
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": max(1, sizes["width"] // sizes["head_width"]),
        "patch_size": sizes["patch_size"],
        "image_size": sizes["image_size"],
        "hidden_act": activation,
        "layer_norm_eps": norm.get("eps", 1e-5),
    }
    return settings, _as_processor(pictures, sizes["image_size"])


def _as_processor(pictures: dict[str, Any], size: int) -> dict[str, Any]:
    """open_clip's preprocess_cfg in the words of preprocessor_config.json."""
    mode = pictures.get("resize_mode") or "shortest"
    square = {"height": size, "width": size}
    told: dict[str, Any] = {"resample": RESAMPLE.get(pictures.get("interpolation"), Image.Resampling.BICUBIC.value)}
    told |= {"do_center_crop": mode == "shortest", "do_pad": mode == "longest", "crop_size": square}
    told["size"] = {"shortest_edge": size} if mode == "shortest" else square
    for key in ("mean", "std"):
        value = pictures.get(key)
        told[f"image_{key}"] = [value] * 3 if isinstance(value, int | float) else value
    return told
