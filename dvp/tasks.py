"""The tasks: which tables they read, how an answer becomes a target, a loss, a score and a submission.

A new task is one entry of TASKS (and one file in prepare/).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_targets(labels: list[list[int]], scores: list[list[float]], num_answers: int) -> Tensor:
    """Soft scores (B, C): 0.3, 0.6, 0.9 or 1 where annotators gave that answer, else 0."""
    targets = torch.zeros(len(labels), num_answers)
    counts = torch.tensor([len(found) for found in labels], dtype=torch.long)
    rows = torch.arange(len(labels)).repeat_interleave(counts)
    targets[rows, list(chain.from_iterable(labels))] = torch.tensor(list(chain.from_iterable(scores)))
    return targets


def class_targets(labels: list[list[int]], scores: list[list[float]], num_answers: int) -> Tensor:
    """Class indices (B,), the last label of each row as published; -100 where no answer is in the vocabulary."""
    return torch.tensor([found[-1] if found else -100 for found in labels])


def soft_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, summed over the answers, mean over the batch."""
    return F.binary_cross_entropy_with_logits(logits, targets) * targets.shape[1]


def soft_score(logits: Tensor, targets: Tensor) -> Tensor:
    """The soft score (B,) of each row's arg max answer, 0 to 1."""
    return targets.gather(1, logits.argmax(1, keepdim=True))[:, 0]


def class_score(logits: Tensor, targets: Tensor) -> Tensor:
    """1 where the arg max answer (B,) is right, else 0; a row without a known answer is wrong."""
    return (logits.argmax(1) == targets).float()


@dataclass(frozen=True)
class Task:
    """What a task is. Splits are names as in `<files>_<split>.arrow`."""

    files: str  # what the names of its Arrow files begin with
    train: tuple[str, ...]
    validate: tuple[str, ...]  # reported after every epoch
    test: tuple[str, ...]  # evaluated by test_only
    pick: str  # the split that rewards the search and picks the checkpoint
    published_pick: tuple[str, ...]  # what the published code used for both
    metric: str
    targets: Callable[[list, list, int], Tensor] = class_targets
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    score: Callable[[Tensor, Tensor], Tensor] = class_score
    answers: tuple[str, ...] | None = None  # a fixed vocabulary; None: the data's own
    # normalised answer -> how its official program, which compares to the letter, spells it; of tables without spelling
    spellings: dict[str, str] = field(default_factory=dict)
    submission: tuple[str, str] | None = None  # names of the id and the answer in a predictions file

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that its tables must have."""
        labels = () if self.answers else ("answer_labels", "answer_scores")
        return ("image", "questions", "answers", *labels, *(("question_id",) if self.submission else ()))


TASKS = {
    "vqa": Task(
        files="vqav2",
        train=("train", "trainable_val"),
        validate=("rest_val",),
        test=("test",),  # test_split=test-dev reads that table instead
        pick="rest_val",
        published_pick=("rest_val",),
        metric="score",
        targets=soft_targets,
        loss=soft_loss,
        score=soft_score,
        submission=("question_id", "answer"),
    ),
    "gqa": Task(
        files="gqa",
        train=("train",),
        validate=("val", "test-dev"),
        test=("test-dev",),
        pick="val",
        published_pick=("test-dev",),
        metric="accuracy",
        spellings={
            "at camera": "at the camera",
            "dry erase board": "dry-erase board",
            "in mirror": "in the mirror",
            "making face": "making a face",
            "t shirt": "t-shirt",
            "taking photo": "taking a photo",
            "taking photograph": "taking a photograph",
            "taking picture": "taking a picture",
        },
        submission=("questionId", "prediction"),
    ),
    "snli_ve": Task(
        files="snli_ve",
        train=("train",),
        validate=("dev", "test"),
        test=("dev", "test"),
        pick="dev",
        published_pick=("dev", "test"),
        metric="accuracy",
        answers=("contradiction", "neutral", "entailment"),  # the published order of the labels
    ),
    # Its rows, loss and answers are those of dvp/scienceqa.
    "scienceqa": Task(
        "scienceqa", ("train",), ("val",), ("test",), "val", ("val",), "accuracy", answers=tuple("ABCDE")
    ),
}
