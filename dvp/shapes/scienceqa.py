"""The embedded world's ScienceQA: multiple choice about scenes in the official layout, half of it with a picture, and a LLaMA
that has learned from text alone to answer such questions.

python -m dvp.shapes.scienceqa        # makes dvp/shapes/models/llama_sqa again
"""

import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from dvp.scienceqa.text import write_example
from dvp.scienceqa.tokens import Tokens, encode_row, load_tokens
from dvp.shapes.questions import ask
from dvp.shapes.raw import Picture
from dvp.shapes.world import COLORS, PLACES, SHAPES, Scene, caption, scenes

MODEL = Path(__file__).parent / "models" / "llama_sqa"
KINDS = ("color at", "shape at")
POOLS: tuple[Sequence[str], ...] = (tuple(COLORS), tuple(SHAPES))
CHOICES = (2, 3, 4)
LECTURES = {
    "color at": "A color is what light a shape gives back.",
    "shape at": "A shape is what outline a thing has.",
}
SUBJECTS = {"color at": "natural science", "shape at": "language science"}
HIDDEN, LAYERS, HEADS = 96, 6, 6


def write_science_qa(root: Path, splits: dict[str, list[Picture]], rng: random.Random) -> None:
    """ScienceQA: problems.json, pid_splits.json, captions.json and the images of every other problem."""
    problems, pids = {}, {}
    for split, pictures in splits.items():
        pids[split] = []
        for picture in pictures:
            pid = str(picture.number)
            pids[split].append(pid)
            problems[pid] = {**problem(picture.scene, picture.number % 2 == 0, rng), "split": split}
            if problems[pid]["image"]:
                place = root / "images" / split / pid / "image.png"
                place.parent.mkdir(parents=True)
                place.write_bytes(picture.jpeg)
    for name, content in {"problems": problems, "pid_splits": pids, "captions": {"captions": {}}}.items():
        (root / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def problem(scene: Scene, has_image: bool, rng: random.Random) -> dict[str, Any]:
    """A problem about the scene, which is seen, or told in the hint."""
    (question,) = ask(scene, KINDS, 1, rng)
    pool = next(pool for pool in POOLS if question.answer in pool)
    wrong = rng.sample([answer for answer in pool if answer != question.answer], rng.choice(CHOICES) - 1)
    choices = rng.sample([question.answer, *wrong], len(wrong) + 1)
    return {
        "question": question.text,
        "choices": choices,
        "answer": choices.index(question.answer),
        "hint": "" if has_image else caption(scene, rng),
        "image": "image.png" if has_image else None,
        "task": "closed choice",
        "grade": f"grade{rng.randint(1, 12)}",
        "subject": SUBJECTS[question.kind],
        "topic": "shapes",
        "category": question.kind,
        "skill": question.kind,
        "lecture": LECTURES[question.kind],
        "solution": question.full_answer,
    }
