"""ScienceQA: an answer is written by the language model's own head, and learned over labelled tokens."""

from collections.abc import Callable
from functools import partial
from typing import Any

from PIL import Image
from torch import Tensor

from dvp.backbones import BACKBONES, family_of, load_with_head
from dvp.data import QuestionData
from dvp.encoders import ENCODERS, Preprocessing, Told
from dvp.encoders.loading import count_blocks, find_encoder
from dvp.errors import UserError
from dvp.evaluation.submission import Submission
from dvp.model import DVP
from dvp.published.scienceqa import load_published
from dvp.scienceqa.answering import by_likelihood, by_text, results
from dvp.scienceqa.data import COLUMNS, SQUEEZED, ProblemReader
from dvp.scienceqa.prefix import build_parts, class_token_blocks
from dvp.scienceqa.text import answers_first
from dvp.scienceqa.tokens import Layout
from dvp.tasks import Answerer, Task
from dvp.vision import Vision

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

# Its adapters are its own. CLIP's are trained, so that its tokens cannot be kept.
OFFERED = {
    "use_adapter": (True, False), "prompt_tokens": (1,), "quantize": (None,), "compile": (False,),
    "image_tokens": ("live", "zero"),
}  # fmt: skip
DESCRIBED = ("prompt_format", "use_caption")
SUBMISSION = "sqa_{checkpoint}.json"
ALWAYS_BY_LENGTH = True
SHARDED = False  # devices that write texts of different length would wait for each other
SOME_UNUSED = True  # all that sees, where no row has a picture


def read(config: dict[str, Any], task: Task, transform: Callable[[Image.Image], Tensor] | None) -> ProblemReader:
    """The reader of problems as sequences with places for what is seen."""
    likelihood = config["answer_by"] == "likelihood"
    if not answers_first(config["prompt_format"]) and likelihood:
        raise UserError(
            f"answer_by=likelihood asks for the letter first, but prompt_format={config['prompt_format']} teaches to "
            "explain before: use answer_by=generate, or a format that begins with the answer, such as QCM-ALE."
        )
    row = find_encoder(config["clip_model"]).row
    if not row.class_token:
        have = ", ".join(one.name for one in ENCODERS.values() if one.class_token)
        raise UserError(
            f"clip_model={config['clip_model']} is a {row.name}, which has no class token, and of these ScienceQA's "
            f"prefix is made: take one of {have}."
        )
    tokens = BACKBONES[family_of(config["tokenizer"])].tokenizer(config["tokenizer"])
    layout = Layout(
        tuple(tokens.encode("Image: ")),
        tuple(tokens.encode("Image: N/A")),
        len(class_token_blocks(count_blocks(config["clip_model"]))),
        config["max_text_len"],
    )
    options = {key: config[key] for key in ("prompt_format", "use_caption", "as_published")}
    return ProblemReader(tokens, layout, transform, likelihood=likelihood, **options)


def prepared(told: Told) -> Preprocessing:
    """As the encoder's own files say, but for CLIP, whose pictures are squeezed, as published."""
    return SQUEEZED if told.row.name == "CLIP" else told.prepared


def columns(task: Task) -> tuple[str, ...]:
    """The columns that the tables of a task must have."""
    return COLUMNS


def settings_in(path: str) -> dict[str, Any]:
    """Nothing: what a published checkpoint's settings mean is not known."""
    return {}


def build_model(
    config: dict[str, Any],
    data: QuestionData,
    vision: Vision,
    language_model: dict[str, Any],
    compressors: dict[str, Any],
) -> DVP:
    """A frozen language model with its head and a frozen CLIP, both with routed adapters."""
    backbone, head = load_with_head(config["tokenizer"], **language_model)
    data.reader.tokens.require_fit(backbone.vocabulary_size, config["tokenizer"])
    parts = build_parts(vision.encoder, backbone, head, data.reader.layout, as_published=config["as_published"])
    return DVP(**parts, **compressors)


def answer(config: dict[str, Any], data: QuestionData) -> dict[str, Answerer]:
    """While validating, the likeliest letter where the answer comes first, else what is written; the test as asked."""
    reader = data.reader
    written = by_text(reader.tokens, reader.layout.max_length, config["max_new_tokens"], config["as_published"])
    return {purpose: by_likelihood if reader.stems[purpose] else written for purpose in ("validate", "test")}


def submit(config: dict[str, Any], task: Task) -> Callable[[list[tuple[Any, str]], QuestionData], Submission]:
    """The official file of results."""
    return partial(results, as_published=config["as_published"], seed=config["seed"])
