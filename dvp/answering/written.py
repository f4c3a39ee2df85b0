"""ScienceQA: the model writes, a choice is read from it; beside it the likelihood of every letter at its place."""

from typing import Any

import torch

from dvp.answering.asked import Answer, Asked, Candidate, Collate
from dvp.backbones.tokenizer import Tokenizer
from dvp.errors import UserError
from dvp.model import DVP
from dvp.scienceqa.data import ProblemReader
from dvp.scienceqa.text import ANSWER_STEM, LETTERS, answers_first, read_answer
from dvp.tasks import Answerer

__all__ = ["TAKES_CHOICES", "check", "count_cut", "reply", "row", "tokenizer"]

TAKES_CHOICES = True  # they and the hint come with the question


def check(asked: Asked, sees: bool) -> None:
    """Raise UserError for a question without choices, or with more than there are letters."""
    if not 2 <= len(asked.choices) <= len(LETTERS):
        raise UserError(
            f"{len(asked.choices)} choices are given, and this checkpoint chooses from 2 to {len(LETTERS)}: give "
            'them as in choices="red|blue".'
        )
    if not all(isinstance(choice, str) and choice.strip() for choice in asked.choices):
        raise UserError(f"The choices {asked.choices!r} are not all texts: write each of them out.")


def row(reader: ProblemReader, asked: Asked) -> dict[str, Any]:
    """The problem as the reader's collate takes it; its right answer is not known, and not looked at."""
    problem = {"question": asked.question, "choices": list(asked.choices), "hint": asked.hint, "answer": 0}
    problem |= {"caption": asked.caption, "lecture": "", "solution": ""}
    has_image = asked.picture is not None
    found = {"problem": problem, "row": reader.encode(problem, has_image, reader.stems["test"])}
    found |= {"answer": 0, "num_choices": len(asked.choices), "question_id": ""}
    return found | ({"pixel_values": reader.transform(asked.picture)} if has_image and reader.transform else {})


def tokenizer(reader: ProblemReader) -> Tokenizer:
    """What makes tokens of the question."""
    return reader.tokens


def count_cut(reader: ProblemReader, row: dict[str, Any]) -> tuple[int, int] | None:
    """How many positions the problem takes and how many are read, where these are fewer."""
    length = reader.layout.length(row["row"])
    return None if length <= reader.max_length else (length, reader.max_length)


def reply(
    model: DVP, reader: ProblemReader, answer: Answerer, collate: Collate, rows: list[Any], layer: int, top: int
) -> list[Answer]:
    """What is written to these rows, the choice that it names, and the choices by their likelihood.

    collate: makes a batch of rows on the model's device.
    """
    texts = answer(model, collate(rows), layer).texts
    batch = collate([_asking(reader, one, text) for one, text in zip(rows, texts, strict=True)])
    logits = model(batch, layer)[:, batch["letters"]]  # (B, letters)
    return [_read(reader, *one, top) for one in zip(rows, texts, logits, strict=True)]


def _asking(reader: ProblemReader, one: dict[str, Any], text: str) -> dict[str, Any]:
    """The problem with what was written before its letter, so that the letter comes next."""
    before = "" if answers_first(reader.prompt_format) else text.partition(ANSWER_STEM)[0].rstrip() + " "
    return one | {"row": reader.encode(one["problem"], one["row"].has_image, before + ANSWER_STEM)}


def _read(reader: ProblemReader, one: dict[str, Any], text: str, logits: torch.Tensor, top: int) -> Answer:
    choices = one["problem"]["choices"]
    chances = logits[: len(choices)].softmax(0).tolist()
    named = read_answer(text, len(choices), reader.as_published)
    found = sorted(
        (Candidate(f"({LETTERS[index]}) {choices[index]}", chance) for index, chance in enumerate(chances)),
        key=lambda candidate: -candidate.probability,
    )
    if named is None:
        return Answer("", 0.0, tuple(found[:top]), None, text)
    return Answer(choices[named], chances[named], tuple(found[:top]), LETTERS[named], text)
