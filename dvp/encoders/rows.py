"""All in which image encoders differ, a row a family. What they share: the tokens are the last hidden state."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from PIL import Image

from dvp.encoders.preprocessing import CLIP, HALF, IMAGENET, Preprocessing


class Encoder(NamedTuple):
    """A family of image encoders.

    model: its class in transformers. prepared: how its pictures are made ready where no file says it. whole: model_type
    of a model of which it is the image half. class_token: whether one stands first, before registers and patches.
    attention_norm: the norm before a block's attention, behind which ScienceQA puts adapters. any_size: it takes
    pictures of any number of patches. without: settings that leave out what no token passes, and what is drawn anew in
    every pass of a training.
    """

    name: str
    model: str
    prepared: Preprocessing
    whole: str = ""
    class_token: bool = True
    attention_norm: str = "layer_norm1"
    any_size: bool = False
    without: Mapping[str, Any] = MappingProxyType({})


_DINOV2 = {"prepared": Preprocessing(224, 256, **IMAGENET), "attention_norm": "norm1", "any_size": True}

ENCODERS: dict[str, Encoder] = {  # by model_type in config.json
    "clip_vision_model": Encoder("CLIP", "CLIPVisionModel", CLIP, whole="clip"),
    "siglip_vision_model": Encoder(
        "SigLIP",
        "SiglipVisionModel",
        Preprocessing(224, None, **HALF),
        whole="siglip",
        class_token=False,
        without={"vision_use_head": False},
    ),
    "dinov2": Encoder("DINOv2", "Dinov2Model", **_DINOV2),
    "dinov2_with_registers": Encoder("DINOv2 with registers", "Dinov2WithRegistersModel", **_DINOV2),
    "dinov3_vit": Encoder(
        "DINOv3",
        "DINOv3ViTModel",
        Preprocessing(224, None, **IMAGENET, resample=Image.Resampling.BILINEAR.value),
        attention_norm="norm1",
        any_size=True,
        without=dict.fromkeys(("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale")),
    ),
}
NAMES = ", ".join(row.name for row in ENCODERS.values())

_NO_PATCHES = "has no patch tokens, but feature maps of convolutions"
_MERGES = "merges its patches on the way, and so has no tokens of the picture's patches"
_OWN_SHAPES = "(NaFlex) keeps each picture's shape, so that pictures differ in their patches"
REFUSED: dict[str, str] = {  # model_type -> why it can have no row
    **dict.fromkeys(
        ("bit", "convnext", "convnextv2", "dinov3_convnext", "efficientnet", "mobilenet_v1", "mobilenet_v2", "regnet",
         "resnet"),
        _NO_PATCHES,
    ),
    **dict.fromkeys(("hiera", "mvit", "pvt", "pvt_v2", "swin", "swinv2"), _MERGES),
    **dict.fromkeys(("siglip2", "siglip2_vision_model"), _OWN_SHAPES),
}  # fmt: skip
TAKE = "openai/clip-vit-base-patch16, google/siglip2-base-patch16-224 or facebook/dinov2-base"
