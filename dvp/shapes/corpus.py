"""The text that the embedded world's language models are pre-trained on: descriptions, questions about them, answers.

Each entry describes a part of a pre-training scene, one to three of its things, as if there were no more.
"""

import random
from typing import NamedTuple

from dvp.shapes.questions import KINDS, ask, state
from dvp.shapes.world import Scene, caption, scenes

SIZES = (1, 1, 2, 3)
VERDICTS = ("contradiction", "neutral", "entailment")


class Entry(NamedTuple):
    """A description, a question or statement about it, and its answer or verdict."""

    description: str
    question: str
    answer: str


def entries(count: int, seed: int = 0) -> list[Entry]:
    """`count` entries, about one in five a statement, the others questions of all kinds alike."""
    rng = random.Random(f"corpus {seed}")
    found: list[Entry] = []
    for scene in scenes("pretrain", count // 3, seed):
        part = part_of(scene, rng)
        told = caption(part, rng)
        found += [Entry(told, question.text, question.answer) for question in ask(part, tuple(KINDS), 4, rng)]
        verdict = rng.choice(VERDICTS)
        found.append(Entry(told, state(part, verdict, rng), verdict))
    return found[:count]


def part_of(scene: Scene, rng: random.Random, sizes: tuple[int, ...] = SIZES) -> Scene:
    """As many things of the scene as one of `sizes` says, or all."""
    return tuple(sorted(rng.sample(scene, min(len(scene), rng.choice(sizes)))))


def sentences(count: int = 4000) -> list[str]:
    """Text to train tokenizers on: every word of the world, as often as it is used."""
    return [text for entry in entries(count) for text in entry]
