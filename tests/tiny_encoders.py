"""Tiny random image encoders as folders, a family each, with preprocessor_config.json as public folders have it."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
import transformers
from safetensors.torch import save_file
from tiny_world import shake

from dvp.encoders import CLIP, ENCODERS
from dvp.files import write_json

# Pixels of the position table; DINO's are tried at the pixels of their files, DINOv2's table is larger.
SIZES = {
    "clip_vision_model": {"image_size": 32, "patch_size": 8},
    "siglip_vision_model": {"image_size": 30, "patch_size": 8},
    "dinov2": {"image_size": 42, "patch_size": 14},
    "dinov2_with_registers": {"image_size": 42, "patch_size": 14, "num_register_tokens": 3},
    "dinov3_vit": {"image_size": 32, "patch_size": 8, "num_register_tokens": 4, "pos_embed_rescale": 2.0},
}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_ALL = {"do_normalize": True, "do_rescale": True, "do_resize": True, "rescale_factor": 0.00392156862745098}
_DINOV2 = _ALL | _IMAGENET | {
    "crop_size": {"height": 28, "width": 28}, "do_center_crop": True, "do_convert_rgb": True, "resample": 3,
    "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 32},
}  # fmt: skip
FILES: dict[str, dict[str, Any]] = {
    "clip_vision_model": {  # of before rescaling was told
        "crop_size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3, "size": 32,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [*CLIP.mean], "image_std": [*CLIP.std],
    },
    "siglip_vision_model": _ALL | {
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "image_processor_type": "SiglipImageProcessor",
        "processor_class": "SiglipProcessor", "resample": 3, "size": {"height": 30, "width": 30},
    },
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2,
    "dinov3_vit": _ALL | _IMAGENET | {
        "crop_size": None, "default_to_square": True, "do_center_crop": None, "do_convert_rgb": None, "resample": 2,
        "image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 32, "width": 32},
    },
}  # fmt: skip
SIGLIP2 = FILES["siglip_vision_model"] | {"resample": 2}
TAKEN = {
    "clip_vision_model": 32,
    "siglip_vision_model": 30,
    "dinov2": 28,
    "dinov2_with_registers": 28,
    "dinov3_vit": 32,
}
TEXT = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 50}
WHOLE = {row.whole: model_type for model_type, row in ENCODERS.items() if row.whole}  # both halves


def write_encoder(folder: Path, model_type: str, file: bool = True, **changes: Any) -> str:
    """Write a random encoder, of WHOLE with its text half, 24 wide and 2 blocks deep; returns the folder."""
    half = WHOLE.get(model_type, model_type)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= SIZES[half] | changes
    model_class = getattr(transformers, ENCODERS[half].model)
    config = model_class.config_class(**sizes)
    if model_type in WHOLE:
        model_class = getattr(transformers, ENCODERS[half].model.replace("Vision", ""))
        text = TEXT | {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        config = model_class.config_class(vision_config=config.to_dict(), text_config=text)
    torch.manual_seed(0)
    shake(model_class(config)).save_pretrained(folder)
    if file:
        write_json(folder / "preprocessor_config.json", FILES[half])
    return str(folder)


# open_clip

TOWER = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
OPEN_CLIP_TEXT = {"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1}


def write_open_clip(folder: Path, model: dict, tower: dict, pictures: dict, weights: str = "safetensors") -> None:
    """Write a random CLIP as open_clip saves one."""
    config = {"embed_dim": 16, "vision_cfg": TOWER | tower, "text_cfg": OPEN_CLIP_TEXT} | model
    torch.manual_seed(0)
    made = shake(open_clip.CLIP(**config)).eval()
    told = {"model_cfg": config, "preprocess_cfg": pictures}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    if weights == "safetensors":
        save_file(made.state_dict(), folder / "open_clip_model.safetensors")
    else:
        torch.save(made.state_dict(), folder / "open_clip_pytorch_model.bin")
