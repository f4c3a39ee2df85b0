"""Settings that were typed but do nothing in this run."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sacred.run import Run

from dvp.config.rules import PEFT
from dvp.tasks import TASKS

CONVERT = ("raw_root", "min_answer_count", "rest_val_images", "allow_missing_images")
SCORE = ("task", "predictions", "annotations", "questions")
PREDICT = ("image", "question", "choices", "hint", "ask_from", "top", "json", "heatmap")
DEMO = ("host", "port")
EXPORT = ("push_to", "merge", "with_base", "overwrite", "license", "private")
SWEEP = ("layers", "seeds", "metric", "level")
LORA = ("adapter_rank", "lora_alpha", "lora_dropout")
SCIENCE_QA = ("prompt_format", "use_caption", "answer_by", "max_new_tokens")

# Settings, when they do nothing, and why.
IDLE: tuple[tuple[tuple[str, ...], Callable[[dict[str, Any]], bool], str], ...] = (
    (("insert_layer",), lambda c: c["search_stage"], "a search tries every layer"),
    (("kab", "search_sample", "search_warmup_steps"), lambda c: not c["search_stage"], "this is no search"),
    (("search_sample",), lambda c: c["search_stage"] and c["kab"] == "mean", "kab=mean scores all arms"),
    (("image_tokens_on",), lambda c: c["image_tokens"] in ("live", "zero"), "no tokens are kept"),
    (("turn_pictures",), lambda c: c["image_tokens"] == "zero", "no picture is looked at"),
    (("max_epoch",), lambda c: c["max_steps"] is not None and not c["test_only"], "max_steps says how long the run is"),
    (("end_lr",), lambda c: isinstance(c["decay_power"], str), "only a polynomial decay ends there"),
    (("cpu_processes",), lambda c: c["num_gpus"] > 0, "the run is on GPUs"),
    (SCIENCE_QA, lambda c: TASKS[c["datasets"]].kind != "written", "it is for ScienceQA"),
    (("bucket_by_length",), lambda c: TASKS[c["datasets"]].kind == "written", "ScienceQA always does that"),
    (
        ("test_split",),
        lambda c: not (c["test_only"] and TASKS[c["datasets"]].test_splits),
        "only a test of VQA asks for it",
    ),
    (LORA, lambda c: c["use_adapter"] not in ("lora", "dora"), "it is for use_adapter=lora or dora"),
    (("adapter_targets",), lambda c: c["use_adapter"] not in PEFT, "it is for use_adapter=lora, dora or ia3"),
    (("resume_from",), lambda c: c["test_only"], "a test takes load_path"),
    (("save_every",), lambda c: c["test_only"], "a test saves no checkpoint"),
    (("report",), lambda c: c["test_only"], "a test has no report.html"),
    (("start_from",), lambda c: c["test_only"], "a test takes load_path"),
    (SWEEP, lambda c: True, "it is for sweep"),
    (("runs",), lambda c: True, "it is for compare"),
    (CONVERT, lambda c: True, "it is for convert"),
    (DEMO, lambda c: True, "it is for demo"),
    (PREDICT, lambda c: True, "it is for predict"),
    (("to",), lambda c: True, "it is for predict and export"),
    (EXPORT, lambda c: True, "it is for export"),
    (SCORE, lambda c: True, "it is for score and check_submission"),
)


def idle(typed: Iterable[str], config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The typed settings that do nothing in a run with this checked config, and why."""
    for key in typed:
        for keys, when, why in IDLE:
            if key in keys and when(config):
                yield key, why


def unread(typed: Iterable[str], run: Run) -> Iterator[tuple[str, str]]:
    """The typed settings that a command does not read, and why."""
    reads = run.main_function.signature.arguments
    if not {"_config", "_run"} & set(reads):
        yield from ((key, f"{run.main_function.__name__} does not read it") for key in typed if key not in reads)
