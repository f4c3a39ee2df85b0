"""Makes dvp/shapes/models: tokenizers, language models and CLIP, from scratch, on the CPU.

python -m dvp.shapes.pretrain                        # all four, and their README
python -m dvp.shapes.pretrain --model clip --out /tmp/models
"""

import argparse
import time
from pathlib import Path

import torch
from transformers import CLIPImageProcessor

from dvp.encoders import CLIP
from dvp.files import write_whole
from dvp.shapes.contrastive import pretrain_clip
from dvp.shapes.language import pretrain_bert, pretrain_llama, pretrain_t5
from dvp.shapes.vocabulary import write_tokenizer
from dvp.shapes.world import SIZE

MODELS = Path(__file__).parent / "models"
LANGUAGE = {"bert": pretrain_bert, "t5": pretrain_t5, "llama": pretrain_llama}
STEPS = {"clip": 1000, "bert": 3000, "t5": 2000, "llama": 2400}
SAMPLE = {"clip": 20000, "bert": 60000, "t5": 60000, "llama": 60000}  # pictures, texts


def make(name: str, out: Path, steps: int | None = None, sample: int | None = None) -> str:
    """A row for the model card: what the model reached in which time. The model lies in `out`/`name`."""
    steps, sample, start = steps or STEPS[name], sample or SAMPLE[name], time.time()
    made: list[str] = []

    def write(folder: Path) -> None:
        torch.manual_seed(0)
        folder.mkdir()
        if name == "clip":
            model, reached = pretrain_clip(steps, sample)
            crop = {"height": SIZE, "width": SIZE}
            shape = {"size": {"shortest_edge": SIZE}, "crop_size": crop}
            CLIPImageProcessor(**shape, image_mean=[*CLIP.mean], image_std=[*CLIP.std]).save_pretrained(folder)
        else:
            write_tokenizer(name, folder)
            model, reached = LANGUAGE[name](folder, steps, sample)
        model.half().save_pretrained(folder)
        count = sum(parameter.numel() for parameter in model.parameters())
        made.append(f"| {name} | {count:,} | {steps:,} | {sample:,} | {time.time() - start:.0f} s | {reached} |")

    write_whole(out / name, write)  # so that a broken run never leaves a tokenizer beside weights that learned another
    return made[0]


def main() -> None:
    """Makes the models that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=STEPS, action="append", help="only this one; may be repeated")
    parser.add_argument("--out", type=Path, default=MODELS)
    parser.add_argument("--steps", type=int, help="optimiser updates, instead of the usual")
    arguments = parser.parse_args()
    for name in arguments.model or STEPS:
        print(make(name, arguments.out, arguments.steps), flush=True)


if __name__ == "__main__":
    main()
