"""What the embedded world's LLaMA learns from: rows of tokens, of which it says some, and of those some are answers."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from dvp.backbones.tokenizer import Tokenizer
from dvp.scienceqa.text import ANSWER_STEM, LETTERS, list_choices, write_example
from dvp.shapes.corpus import Entry, part_of
from dvp.shapes.scienceqa import CHOICES, problem
from dvp.shapes.world import COLORS, SHAPES, Scene, caption

LOOK_UPS = 8  # in a row
TOLD = (1, 1, 2, 3, 6)  # things that a problem tells of
FORMATS = ("QCM-ALE", "QCM-EA")  # the second reaches in two steps what the first does at once


class Lesson(NamedTuple):
    """Token ids, from which place on the model says them, the places of the answers.

    And the places whose mean state is to sum up the question, and that question's ids; both empty where none is asked.
    """

    ids: list[int]
    said: int
    answers: list[int]
    asked: Sequence[int] = ()
    question: Sequence[int] = ()


def look_up(tokens: Tokenizer, rng: random.Random, between: str = "") -> Lesson:
    """Choices, then in any order a choice and its letter, a choice and its letter ...; `between` stands in between.

    A transformer learns to copy what stands before a word's earlier self from this in some 400 updates; from problems
    alone, in which a letter comes once, it had not in 2,000.
    """
    choices = rng.sample([*COLORS, *SHAPES], rng.choice(CHOICES))
    ids = [tokens.bos_token_id, *tokens.encode(f"Options: {list_choices(choices)}")]
    said, answers = len(ids), []
    for choice in rng.choices(range(len(choices)), k=LOOK_UPS):
        ids += tokens.encode(choices[choice] + between)
        answers.append(len(ids))
        ids += tokens.encode(LETTERS[choice])
    return Lesson(ids, said, answers)


def reply(tokens: Tokenizer, entry: Entry) -> Lesson:
    """Description, question and answer, each ended by </s>, so that </s> after a question asks for the answer."""
    told, asked, answer = (tokens.encode(part) for part in entry)
    front = [tokens.bos_token_id, *told, tokens.eos_token_id, tokens.bos_token_id, *asked, tokens.eos_token_id]
    ids = [*front, *answer, tokens.eos_token_id]
    return Lesson(ids, 1, list(range(len(front), len(ids))), [len(front) - 1], asked)


def solve(tokens: Tokenizer, scene: Scene, rng: random.Random) -> Lesson:
    """A problem of ScienceQA about a part of the scene, told in the hint, in the place of the image, or nowhere.

    In the place of the image a single thing is told without its place, as a visual prompt does that has found it. Where
    nothing is told the explanation comes first, and a letter can only be that of what it says.
    """
    part, told = part_of(scene, rng, TOLD), rng.choice(("hint", "image", "nowhere"))
    posed = problem(part, told != "hint", rng)
    prompt, target = write_example(posed, "QCM-EA" if told == "nowhere" else rng.choice(FORMATS))
    seen = part[0].name if len(part) == 1 else caption(part, rng)
    front = [tokens.bos_token_id, *tokens.encode(f"Image: {seen if told == 'image' else 'N/A'}")]
    said = len(front) + len(tokens.encode(prompt))
    letter = len(front) + len(tokens.encode(prompt + target.partition(ANSWER_STEM)[0] + ANSWER_STEM))
    ids, asked = [*front, *tokens.encode(prompt + target), tokens.eos_token_id], range(len(front), said)
    return Lesson(ids, said, [letter], asked, tokens.encode(posed["question"]))
