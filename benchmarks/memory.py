"""What LLaMA-7B takes of a GPU, counted on torch's meta device as the doctor counts it: no weights, no GPU.

    python -m benchmarks.memory --batch 32

VQAv2 at a K, with image tokens that are kept, 16 text tokens, bf16 and AdamW. Activations are an estimate.
"""

import argparse
from typing import Any

import torch
from transformers import CLIPVisionModel

from benchmarks.step import ANSWERS, CONFIGS, VISION
from dvp.backbones import BACKBONES
from dvp.config import check, settle
from dvp.doctor.room import activations, standing
from dvp.model import DVP, adapt_language_model
from dvp.vision import Vision

CARD = 24e9  # bytes of the GPU that it should fit
EXPERIMENT = "dvp_adaption_llama_vqa"


def main() -> None:
    """Print a row for each way to hold the language model and each kind of adapter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="rows per pass")
    batch = parser.parse_args().batch
    names = ("frozen weights", "trained weights", "gradients", "moments", "activations", "all")
    print(f"| quantize | use_adapter | {' | '.join(names)} | fits {CARD / 1e9:.0f} GB |\n" + "|---" * 9 + "|")
    for quantize in (None, "8bit", "4bit"):
        for kind in (True, "lora"):
            told = counted(quantize, kind, batch)
            sizes = " | ".join(f"{told[name] / 1e9:.2f}" for name in names)
            print(f"| {quantize} | {kind} | {sizes} | {'yes' if told['all'] < CARD else 'no'} |")


def counted(quantize: str | None, kind: bool | str, batch: int) -> dict[str, float]:
    """Bytes by what they are, and of all."""
    typed = {"quantize": quantize, "use_adapter": kind, "precision": "bf16", "image_tokens": "cache"}
    config = check(settle([EXPERIMENT], typed | {"batch_size": batch, "per_gpu_batchsize": batch}))
    model = build(kind, config)
    told = standing(model, config) | {"activations": activations(model, config)}
    return told | {"all": sum(told.values())}


def build(kind: bool | str, config: dict[str, Any]) -> DVP:
    """The model, shapes alone."""
    backbone = BACKBONES["llama"]
    with torch.device("meta"):
        language = backbone.model_class._from_config(CONFIGS["llama"], dtype=torch.bfloat16)
        vision = Vision(CLIPVisionModel(VISION))
        model = DVP(vision, VISION.hidden_size, backbone(language), ANSWERS, num_heads=config["num_heads"])
        adapt_language_model(model.backbone, kind=kind)
    return model


if __name__ == "__main__":
    main()
