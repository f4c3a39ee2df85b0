"""VQAv2, GQA, SNLI-VE: a question becomes a row of the reader, the likeliest answers of the vocabulary are given."""

from typing import Any

from dvp.answering.asked import Answer, Asked, Candidate, Collate
from dvp.backbones.tokenizer import Tokenizer
from dvp.data import QuestionReader
from dvp.errors import UserError
from dvp.model import DVP
from dvp.tasks import Answerer

__all__ = ["TAKES_CHOICES", "check", "count_cut", "reply", "row", "tokenizer"]

TAKES_CHOICES = False  # it chooses from its own vocabulary


def check(asked: Asked, sees: bool) -> None:
    """Raise UserError for a question without a picture, unless the model sees none, and for one with choices."""
    if sees and asked.picture is None:
        raise UserError("The picture is missing: give an image to the question.")
    if asked.choices or asked.hint:
        raise UserError("This checkpoint answers from its own vocabulary: leave choices and hint out.")


def row(reader: QuestionReader, asked: Asked) -> dict[str, Any]:
    """The question as the reader's collate takes it."""
    found = {"text": asked.question, "labels": [], "scores": []}
    return found if reader.transform is None else found | {"pixel_values": reader.transform(asked.picture)}


def tokenizer(reader: QuestionReader) -> Tokenizer:
    """What makes tokens of the question."""
    return reader.collate.tokenizer


def count_cut(reader: QuestionReader, row: dict[str, Any]) -> tuple[int, int] | None:
    """How many tokens the question has and how many are read, where these are fewer."""
    length = int(reader.collate.tokenizer.lengths([row["text"]])[0])
    return None if reader.max_length is None or length <= reader.max_length else (length, reader.max_length)


def reply(
    model: DVP, reader: QuestionReader, answer: Answerer, collate: Collate, rows: list[Any], layer: int, top: int
) -> list[Answer]:
    """The likeliest answers to these rows, of which `collate` makes a batch on the model's device."""
    logits = model(collate(rows), layer)
    probabilities = reader.task.probabilities(logits)
    best = logits.topk(min(top, logits.shape[1]), dim=1).indices
    answers = []
    for labels, chances in zip(best.tolist(), probabilities.gather(1, best).tolist(), strict=True):
        found = tuple(Candidate(reader.answers[label], chance) for label, chance in zip(labels, chances, strict=True))
        answers.append(Answer(found[0].text, found[0].probability, found))
    return answers
