"""VQAv2, GQA, SNLI-VE: an answer is chosen from a vocabulary by a classifier on the language model."""

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor

from dvp.backbones import BACKBONES, family_of, load_backbone
from dvp.checkpoints import read_description
from dvp.data import QuestionData, QuestionReader, read_answers
from dvp.encoders import Preprocessing, Told
from dvp.evaluation.submission import Submission, predictions
from dvp.families import family_named
from dvp.files import is_published
from dvp.model import DVP, adapt_language_model
from dvp.published.checkpoint import read_lightning
from dvp.published.classification import load_published
from dvp.published.vocabulary import published_answers
from dvp.tasks import Answerer, Task, classify
from dvp.vision import Vision, ZeroTokens

__all__ = [
    "answer",
    "build_model",
    "columns",
    "load_published",
    "prepared",
    "read",
    "settings_in",
    "submit",
]

OFFERED: dict[str, tuple] = {}
ADAPTER_SETTINGS = ("adapter_rank", "adapter_targets", "lora_alpha", "lora_dropout")
DESCRIBED = ("use_adapter",)
SUBMISSION = "{datasets}_submit_{checkpoint}.json"
ALWAYS_BY_LENGTH = False
SHARDED = True
SOME_UNUSED = False


def read(config: dict[str, Any], task: Task, transform: Callable[[Image.Image], Tensor] | None) -> QuestionReader:
    """The reader of questions, their vocabulary that of the checkpoint that is tested, or read from the data."""
    published = config["as_published"] and family_named(config["language_model"]).kind
    return QuestionReader(
        task,
        _answers_of_checkpoint(config, task) or read_answers(config["data_root"], task),
        BACKBONES[family_of(config["tokenizer"])].tokenizer(config["tokenizer"]),
        transform,
        # Published: LLaMA's texts are not cut.
        max_text_len=None if published == "decoder" else config["max_text_len"],
        # Published: T5's query averages over padding, so how much of it there is changes the result.
        pad_to_max=published == "encoder_decoder",
    )


def prepared(told: Told) -> Preprocessing:
    """As the encoder's own files say."""
    return told.prepared


def columns(task: Task) -> tuple[str, ...]:
    """The columns that the tables of a task must have."""
    return task.columns


def settings_in(path: str) -> dict[str, Any]:
    """What a published checkpoint says of the run that it comes from."""
    return read_lightning(path).as_config()


def _answers_of_checkpoint(config: dict[str, Any], task: Task) -> list[str] | None:
    """The vocabulary of a checkpoint to test, or of a published one to load; refuses the latter if it does not fit."""
    if not is_published(config["load_path"]):
        tested = config["test_only"] and config["load_path"]
        return read_description(tested)["answers"] if tested else None
    checkpoint = read_lightning(config["load_path"])
    checkpoint.refuse_other(config)
    return published_answers(checkpoint, config["datasets"], task, config["data_root"])


def build_model(
    config: dict[str, Any],
    data: QuestionData,
    vision: Vision,
    language_model: dict[str, Any],
    compressors: dict[str, Any],
) -> DVP:
    """A classifier over the vocabulary on the whole language model, or on its adapters and norms."""
    backbone = load_backbone(config["tokenizer"], **language_model)
    data.reader.collate.tokenizer.require_fit(backbone.vocabulary_size, config["tokenizer"])
    width = vision.width
    sees = vision if data.reader.transform else ZeroTokens(width)
    model = DVP(sees, width, backbone, len(data.answers), **compressors)
    if config["use_adapter"]:
        adapt_language_model(backbone, kind=config["use_adapter"], **{key: config[key] for key in ADAPTER_SETTINGS})
    return model


def answer(config: dict[str, Any], data: QuestionData) -> dict[str, Answerer]:
    """The likeliest answer of the vocabulary."""
    return dict.fromkeys(("validate", "test"), classify(data.task, data.answers))


def submit(config: dict[str, Any], task: Task) -> Callable[[list[tuple[Any, str]], QuestionData], Submission] | None:
    """The official list of predictions, of tasks that have one."""
    if task.submission is None:
        return None
    return lambda answered, data: predictions(answered, data.questions(data.test).question_ids(), task.submission)
