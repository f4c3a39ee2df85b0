"""Do the heat maps mean anything? Covers what the compressor looked at most, and as much at random.

    python -m demos.occlusion <checkpoint>

Of the questions to held-out scenes, how many answers change when a tenth of the picture's patches is covered with the
picture's mean colour: those of the largest weight (mean over the heads), drawn ones, and those of the smallest weight.
"""  # fmt: skip

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageStat
from torch import Tensor

import dvp
from dvp.answering import Answering
from dvp.config import SHAPES
from dvp.data.arrow import open_table
from dvp.images import open_image

SHARE = 0.1  # of the patches
QUESTIONS = 1000
CHOOSE: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {  # weights (N,) -> an order of patches to cover
    "looked at most": lambda weights, generator: weights.argsort(descending=True),
    "drawn": lambda weights, generator: torch.randperm(len(weights), generator=generator),
    "looked at least": lambda weights, generator: weights.argsort(),
}


def cover(picture: Image.Image, patches: list[int], side: int, box: tuple[float, ...]) -> Image.Image:
    """The picture with patches, of side x side in what was seen (box), covered with its mean colour."""
    covered, colour = picture.copy(), tuple(round(value) for value in ImageStat.Stat(picture).mean)
    left, top, right, bottom = box
    for patch in patches:
        row, column = divmod(patch, side)
        edges = [left + (right - left) * (column + step) / side for step in (0, 1)]
        ends = [top + (bottom - top) * (row + step) / side for step in (0, 1)]
        covered.paste(colour, (round(edges[0]), round(ends[0]), round(edges[1]), round(ends[1])))
    return covered


def changed(
    answering: Answering, pictures: list[Image.Image], questions: list[str], share: float = SHARE, seed: int = 0
) -> dict[str, float]:
    """For every way to choose patches, the share (0 to 1) of the answers that change when they are covered."""
    generator = torch.Generator().manual_seed(seed)
    before = answering.answer(pictures, questions, attention=True)
    found = {}
    for name, choose in CHOOSE.items():
        covered = []
        for picture, answer in zip(pictures, before, strict=True):
            weights = answer.attention.mean(0)[answering.prefix_tokens :]  # without the class token's
            order = choose(weights, generator)[: math.ceil(share * len(weights))]
            covered.append(cover(picture, order.tolist(), math.isqrt(len(weights)), answering.seen(picture)))
        after = answering.answer(covered, questions)
        found[name] = sum(one.text != other.text for one, other in zip(before, after, strict=True)) / len(before)
    return found


def main() -> None:
    """Ask a checkpoint about the embedded world's test and print what covering does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of the embedded world")
    answering = dvp.load(parser.parse_args().checkpoint)
    task = answering.task
    table = open_table(SHAPES["data_root"], task.files, task.tested("test")[0], ("image", "questions"))
    asked = [
        (row["image"], question)
        for row in table.select(["image", "questions"]).to_pylist()
        for question in row["questions"]
    ][:QUESTIONS]
    pictures = [open_image(image, "in the test") for image, _ in asked]
    print(f"Of {len(asked):,} answers change when a tenth of the patches is covered:")
    for name, share in changed(answering, pictures, [question for _, question in asked]).items():
        print(f"  {name:16}{share:7.1%}")


if __name__ == "__main__":
    main()
