"""The tasks: which tables they read, how an answer becomes a target, a loss, a score and a submission.

A new task is one entry of TASKS and its experiments; for raw data a file in prepare/, for a head of its own one in
kinds/. torch is imported where it computes, so that a look at the table, before anything runs, does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dvp.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def soft_targets(labels: list[list[int]], scores: list[list[float]], num_answers: int) -> Tensor:
    """Soft scores (B, C): 0.3, 0.6, 0.9 or 1 where annotators gave that answer, else 0."""
    import torch

    targets = torch.zeros(len(labels), num_answers)
    counts = torch.tensor([len(found) for found in labels], dtype=torch.long)
    rows = torch.arange(len(labels)).repeat_interleave(counts)
    targets[rows, list(chain.from_iterable(labels))] = torch.tensor(list(chain.from_iterable(scores)))
    return targets


def class_targets(labels: list[list[int]], scores: list[list[float]], num_answers: int) -> Tensor:
    """Class indices (B,), the last label of each row as published; -100 where no answer is in the vocabulary."""
    import torch

    return torch.tensor([found[-1] if found else -100 for found in labels])


def soft_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, summed over the answers, mean over the batch."""
    from torch.nn import functional as F

    return F.binary_cross_entropy_with_logits(logits, targets) * targets.shape[1]


def class_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, mean over the rows with a known answer."""
    from torch.nn import functional as F

    return F.cross_entropy(logits, targets)


def shared_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with each row's right answers by their share of its scores; mean over the rows that have one."""
    from torch.nn import functional as F

    known = targets.sum(1) > 0
    shares = targets[known] / targets[known].sum(1, keepdim=True)
    return F.cross_entropy(logits[known], shares)


def soft_score(logits: Tensor, targets: Tensor) -> Tensor:
    """The soft score (B,) of each row's arg max answer, 0 to 1."""
    return targets.gather(1, logits.argmax(1, keepdim=True))[:, 0]


def class_score(logits: Tensor, targets: Tensor) -> Tensor:
    """1 where the arg max answer (B,) is right, else 0; a row without a known answer is wrong."""
    return (logits.argmax(1) == targets).float()


def soft_probabilities(logits: Tensor) -> Tensor:
    """Each answer's own probability (B, C): several may be right at once."""
    return logits.sigmoid()


def class_probabilities(logits: Tensor) -> Tensor:
    """The probabilities (B, C) of the answers, of which one is right."""
    return logits.softmax(1)


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, mean over the labelled tokens (R,) of the batch; 0, not 0 / 0, where it has none."""
    from torch.nn import functional as F

    return F.cross_entropy(logits, targets, reduction="sum") / max(1, len(targets))


def mean_score(task: Task, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The mean score in percent."""
    return 100 * task.score(logits, batch["targets"]).mean()


def mean_likelihood(task: Task, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """100 * exp(-loss): the labelled tokens' likelihood, their geometric mean, in percent."""
    return 100 * (-task.loss(logits, batch["targets"])).exp()


def likeliest_choice(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The choice (B,) whose letter is the likeliest among its row's; logits (B, C): of the token that names it."""
    logits = logits[:, batch["letters"]]  # (B, letters)
    beyond = batch["letters"].new_ones(logits.shape).cumsum(1) > batch["num_choices"][:, None]
    return logits.masked_fill(beyond, float("-inf")).argmax(1)


def letter_accuracy(task: Task, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The share of rows, in percent, whose right letter is the likeliest where its answer names one.

    `letter` says which of the labelled tokens that is, -1 where the row was cut before; such a row is wrong. Without
    it, where an explanation comes first: the share of all labelled tokens that are the likeliest.
    """
    if "letter" not in batch:
        return 100 * (logits.argmax(1) == batch["targets"]).float().mean()
    right = likeliest_choice(logits[batch["letter"]], batch) == batch["answer"]
    return 100 * (right & (batch["letter"] >= 0)).float().mean()


class Answers(NamedTuple):
    """What a model answers to a batch: the score of every row (B,), 0 to 1, and its answer."""

    scores: Tensor
    texts: list[str]


# What answers a batch: a model's logits at a layer, or what it writes.
Answerer = Callable[[Any, dict[str, Any], int], Answers]


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
    guide: str = "DATA.md"  # the document that says what its tables are made of
    may_lack: str | None = None  # a split of validate; where its table is missing, training images take its place
    targets: Callable[[list, list, int], Tensor] = class_targets
    loss: Callable[[Tensor, Tensor], Tensor] = class_loss
    score: Callable[[Tensor, Tensor], Tensor] = class_score
    # What an arm of a search earns, from logits and batch, in percent: by the published rule, and by others
    reward: Callable[[Task, Tensor, dict[str, Tensor]], Tensor] = mean_score
    accuracy: Callable[[Task, Tensor, dict[str, Tensor]], Tensor] = mean_score
    probabilities: Callable[[Tensor], Tensor] = class_probabilities
    test_splits: tuple[str, ...] = ()  # those of which test_split= chooses one instead
    answers: tuple[str, ...] | None = None  # a fixed vocabulary; None: the data's own
    # normalised answer -> how its official program, which compares to the letter, spells it; of tables without spelling
    spellings: dict[str, str] = field(default_factory=dict)
    submission: tuple[str, str] | None = None  # names of the id and the answer in a predictions file
    kind: str = "classified"  # how it is read and answered: a file of dvp/kinds
    search_step: float | None = None  # of the bandit; None: its own, for rewards that lie as far apart as accuracies do
    # How the published code trains it
    betas: tuple[float, float] = (0.9, 0.98)
    decayed: str = "by name"  # which parameters: a key of optim.DECAYED
    rate_rows: int | None = None  # rows per update that learning_rate is meant for: it shrinks with fewer; None: any

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the tables of a classified task must have."""
        labels = () if self.answers else ("answer_labels", "answer_scores")
        return ("image", "questions", "answers", *labels, *(("question_id",) if self.submission else ()))

    def tested(self, test_split: str) -> tuple[str, ...]:
        """The splits that a test reads: `test_split` where the task lets choose it, else its own."""
        return (test_split,) if test_split in self.test_splits else self.test


def classify(task: Task, answers: Sequence[str]) -> Answerer:
    """What answers with the likeliest of `answers`."""

    def answer(model: Any, batch: dict[str, Any], layer: int) -> Answers:
        logits = model(batch, layer)
        return Answers(task.score(logits, batch["targets"]), [answers[label] for label in logits.argmax(1).tolist()])

    return answer


TASKS = {
    "vqa": Task(
        files="vqav2",
        train=("train", "trainable_val"),
        validate=("rest_val",),
        test=("test",),
        test_splits=("test", "test-dev"),
        pick="rest_val",
        published_pick=("rest_val",),
        metric="score",
        targets=soft_targets,
        loss=soft_loss,
        score=soft_score,
        probabilities=soft_probabilities,
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
        may_lack="val",  # the published code has train and test-dev alone
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
    "custom": Task(
        files="custom",
        train=("train",),
        validate=("val",),
        test=("test",),
        pick="val",
        published_pick=("val",),
        metric="accuracy",  # of several annotators' answers, VQA's soft one
        guide="docs/own_data.md",
        may_lack="val",
        targets=soft_targets,
        loss=shared_loss,
        score=soft_score,
        submission=("question_id", "answer"),
    ),
    "scienceqa": Task(
        files="scienceqa",
        train=("train",),
        validate=("val",),
        test=("test",),
        pick="val",
        published_pick=("val",),
        metric="accuracy",
        loss=token_loss,
        reward=mean_likelihood,
        accuracy=letter_accuracy,
        answers=tuple("ABCDE"),
        kind="written",
        search_step=10,  # likelihoods lie close together
        betas=(0.9, 0.95),
        decayed="by shape",
        rate_rows=256,
    ),
}


def require_table(path: Path, files: str) -> None:
    """Raise UserError where a table of the task of these `files` is not there, with those that are."""
    if not path.is_file():
        name, task = next((name, task) for name, task in TASKS.items() if task.files == files)
        have = ", ".join(sorted(found.name for found in path.parent.glob(f"{files}_*.arrow"))) or f"no table of {name}"
        raise UserError(
            f"{path} is missing ({path.parent} has {have}): make it with `python run.py convert with datasets={name}`, "
            f"see {task.guide}."
        )
