"""The verbs beside search, train and test: `python run.py <verb> with ...`. And what happens before any of them."""

import os
from logging import Logger
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver

from dvp.config import SHAPES, check, check_command_line, ex, one_task
from dvp.files import require_writable


@ex.option_hook
def before_all(options: dict[str, Any]) -> None:
    """Refuse mistyped words before anything is loaded; let rank 0, and no other, write the run down."""
    updates = check_command_line(options["COMMAND"], options["UPDATE"] or [])
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        ex.observers[:] = [FileStorageObserver(os.path.join(updates.get("log_dir", "./result"), "sacred"))]


@ex.config_hook
def before_a_run(config: dict[str, Any], command_name: str, logger: Logger) -> dict[str, Any]:
    """Refuse wrong values before the run is written down."""
    if command_name == "main":
        check(config)
        require_writable(Path(config["log_dir"]))
    return {}


@ex.command(unobserved=True)
def convert(datasets, raw_root, data_root, seed, min_answer_count, rest_val_images, allow_missing_images):
    """Turn official raw files into Arrow files."""
    from dvp.prepare import convert as prepare

    options = {"seed": seed, "min_answer_count": min_answer_count, "rest_val_images": rest_val_images}
    prepare(one_task(datasets), raw_root, data_root, allow_missing_images=allow_missing_images, **options)


@ex.command(unobserved=True)
def encode(_config):
    """Encode every picture of a data set once, as image_tokens=cache would before training."""
    from dvp.build import encode_pictures

    encode_pictures(check(_config))


@ex.command(unobserved=True)
def shapes(data_root, seed):
    """Draw the embedded world in the raw formats of all tasks, and convert it."""
    from dvp.shapes import build

    build(data_root or SHAPES["data_root"], seed)


@ex.command(unobserved=True)
def score(task, predictions, annotations, questions):
    """Score a file of predictions as the official evaluator does."""
    from dvp.evaluation import score_files

    score_files(task, predictions, annotations, questions)


@ex.command(unobserved=True)
def check_submission(predictions, questions):
    """Say whether the VQA server would take a file of predictions."""
    from dvp import evaluation

    print(evaluation.check_submission(predictions, questions))
