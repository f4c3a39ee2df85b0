"""The verbs of a few lines: `python run.py <verb> with ...`. One of more than ten lines has a file of its own here."""

from colorama import Fore, Style

from dvp.commands.next import after_conversion
from dvp.config import SHAPES, check, ex, fill, one_task


@ex.command(unobserved=True)
def print_config(_run):
    """Print every setting with its value and its meaning, and mark with a * what differs from its default."""
    defaults, placed = ex.settings, {"tokenizer": fill(_run.config)["tokenizer"]}
    print(f"Settings ({Fore.BLUE}* differs from its default{Style.RESET_ALL}):")
    for key, value in sorted((_run.config | placed).items()):
        mark, colour = ("*", Fore.BLUE) if value != defaults[key] else (" ", "")
        told = f"{Style.DIM}# {defaults.docs[key]}{Style.RESET_ALL}"
        print(f"{colour}{mark} {f'{key} = {value!r}':35}  {told}")


@ex.command(unobserved=True)
def convert(datasets, raw_root, data_root, seed, min_answer_count, rest_val_images, allow_missing_images):
    """Turn official raw files into Arrow files."""
    from dvp.prepare import convert as prepare

    task, options = one_task(datasets), {"min_answer_count": min_answer_count, "rest_val_images": rest_val_images}
    prepare(task, raw_root, data_root, seed=seed, allow_missing_images=allow_missing_images, **options)
    print(after_conversion(task, data_root))


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
def check_submission(predictions, questions, test_split):
    """Say whether the VQA server would take a file of predictions."""
    from dvp import evaluation

    print(evaluation.check_submission(predictions, questions, test_split))
