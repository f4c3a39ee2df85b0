"""What a run says of itself: at its start what it reads, trains and writes, at its end what came out and where."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from dvp.data import QuestionData
from dvp.runs.progress import clock

POSITIONS = "max_position_embeddings"  # of those language models that count them
WIDTH = 9  # of the names in front
CALLED = {"vision": "image encoder", "backbone": "language model"}  # parts of the model, where users say it otherwise


def start_lines(config: dict[str, Any], data: QuestionData, module: pl.LightningModule, trainer: pl.Trainer) -> str:
    """What a training with this checked config is about to do, and which of its sizes can hardly be meant."""
    facts = [*run_facts(config, data, module, trainer).items(), *(("note", line) for line in _excess(config, module))]
    return "\n".join([title(config, module), *(f"  {name:{WIDTH}}{line}" for name, line in facts)])


def title(config: dict[str, Any], module: pl.LightningModule) -> str:
    """The run in a line: its name, what is done at which K, and of how many layers of what."""
    what = f"search K ({config['kab']}) over" if module.bandit else f"train at K = {module.insert_layer} of"
    return f"{config['exp_name']}: {what} {module.model.num_layers} layers of {config['tokenizer']}"


def run_facts(
    config: dict[str, Any], data: QuestionData, module: pl.LightningModule, trainer: pl.Trainer
) -> dict[str, str]:
    """What a training reads, is scored by, trains, leaves frozen and takes, and where it writes, each in words."""
    task = data.task
    rows = len(data.questions(task.train, "train"))
    picking = len(data.questions(module.pick, "search" if module.bandit else "validate"))
    parts = {CALLED.get(name, name): _counts(part) for name, part in module.model.named_children()}
    trained = [
        f"{name} {some:,}" + (f" of {all_:,}" if some < all_ else "") for name, (some, all_) in parts.items() if some
    ]
    frozen = [f"{name} {all_:,}" for name, (some, all_) in parts.items() if not some and all_]
    devices = f"{config['devices']} x {'GPU' if config['num_gpus'] else 'CPU'}"
    facts = {
        "reads": f"{rows:,} questions of {_listed(task.train)} in {data.data_root}",
        "scores": f"{picking:,} questions of {_listed(module.pick)}: {module.monitor} picks the checkpoint",
        "trains": f"{', '.join(trained)} parameters",
        "frozen": f"{', '.join(frozen)} parameters",
        "takes": f"{config['batch_size']} rows per update, on {devices}, {trainer.precision}",
        "writes": trainer.default_root_dir,
    }
    return {name: line for name, line in facts.items() if line != " parameters"}


def _excess(config: dict[str, Any], module: pl.LightningModule) -> Iterator[str]:
    """A sentence for each size that works, and is larger than it can be of use."""
    named = list(module.model.backbone.named_parameters())
    widths = [one.shape[1] for name, one in named if ".lora_A." in name]
    widths += [one.shape[0] for name, one in named if ".lora_B." in name]
    if widths and config["adapter_rank"] >= min(widths):
        yield (
            f"adapter_rank={config['adapter_rank']} is not below {min(widths)}, the width of the narrowest layer that "
            "it adapts: less learns as much, with fewer parameters."
        )
    prompt, positions = config["prompt_tokens"], getattr(module.model.backbone.model.config, POSITIONS, None)
    more = [f"the text's {config['max_text_len']} tokens"] if prompt > config["max_text_len"] else []
    more += [f"the language model's {positions} positions"] if positions and prompt > positions else []
    if more:
        yield f"prompt_tokens={prompt} outnumber {_listed(more)}: every layer from K on carries them; a few are usual."


def end_lines(config: dict[str, Any], trainer: pl.Trainer, seconds: float) -> str:
    """The scores of a test, or the best of a training, in percent, and its files."""
    module, took = trainer.lightning_module, f"took {clock(seconds)}"
    if config["test_only"]:
        known = trainer.callback_metrics.items()
        scores = [f"{name} {value / 100:.4f} = {value:.2f} %" for name, value in known if name != "as_published"]
        return "\n".join([*scores, f"The test at K = {module.best_layer} {took}."])
    folder, best = Path(trainer.default_root_dir), trainer.checkpoint_callback
    if config["fast_dev_run"]:
        return "One batch of everything went through; nothing is kept."
    if module.bandit:
        found = []
    elif best.best_model_score is not None:
        found = [f"Best {best.monitor}: {best.best_model_score:.2f} % at K = {module.best_layer}"]
    else:
        found = ["The run ended before its first validation."]
    names = [f"checkpoints/{Path(best.best_model_path).name}", "checkpoints/last.ckpt", "metrics.csv"]
    kept = [name for name in names if (folder / name).is_file() or (folder / name / "description.json").is_file()]
    return "\n".join([*found, f"It {took}. In {folder}: {', '.join(kept)}, events of TensorBoard"])


def _counts(part: Any) -> tuple[int, int]:
    """Trained and all parameters."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
    return sum(count for count, trained in counts if trained), sum(count for count, _ in counts)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
