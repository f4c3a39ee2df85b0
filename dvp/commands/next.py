"""What can be done with a finished run: the commands to type, made of the words that were typed."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvp.commands.early import missing_tables, on_cpu_without_gpus
from dvp.config import NAMED
from dvp.config.experiments import search_of
from dvp.tasks import TASKS

if TYPE_CHECKING:
    import pytorch_lightning as pl

STARTS = ("load_path", "resume_from", "start_from", "insert_layer")
# Of a stage's own; what else was typed holds for the next stage, too.
OWN = (*STARTS, "exp_name", "kab", "search_sample", "search_warmup_steps", "learning_rate", "lr_mult", "weight_decay",
       "decay_power", "end_lr", "warmup_steps", "max_epoch", "max_steps", "val_check_interval")  # fmt: skip
LONGER = 2  # times, after a search that found nothing


def what_next(config: dict[str, Any], trainer: "pl.Trainer", named: Sequence[str], typed: dict[str, Any]) -> str:
    """The commands that follow a training or search with this checked config, of named configs and typed settings."""
    if not trainer.lightning_module.bandit:
        head, lines = "Next:", _after_training(config, checkpoint_of(trainer), named, typed)
    else:
        stages = "dvp_adaption_", "dvp_search_"  # search_and_train takes an experiment of either
        words = [word.replace(*stages) if word in NAMED else word for word in named]
        head, line = _after_search(config, trainer, words, typed)
        lines = [line]
    return "\n".join([head, *(f"  {line}" for line in lines)])


def checkpoint_of(trainer: "pl.Trainer") -> str:
    """The best checkpoint of a training, the last where none was validated."""
    return trainer.checkpoint_callback.best_model_path or last_of(trainer)


def last_of(trainer: "pl.Trainer") -> str:
    """The newest checkpoint of a run; the one that it went on from, where it was at its end already."""
    last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    return str(last) if last.exists() or not trainer.ckpt_path else str(trainer.ckpt_path)


def ask(config: dict[str, Any], checkpoint: str) -> str:
    """The command that asks a checkpoint of a training with this config a question of one's own."""
    asks = ["image=<picture>", 'question="<question>"']
    asks += ['choices="<one>|<other>"'] if TASKS[config["datasets"]].kind == "written" else []
    return f"python run.py predict with load_path={shlex.quote(checkpoint)} {' '.join(asks)}"


def _after_training(config: dict[str, Any], checkpoint: str, named: Sequence[str], typed: dict[str, Any]) -> list[str]:
    if missing_tables(config | {"test_only": True}):
        return [ask(config, checkpoint)]
    kept = {key: value for key, value in typed.items() if key not in OWN}
    return [command(named, kept | {"test_only": True, "load_path": checkpoint}), ask(config, checkpoint)]


def _after_search(
    config: dict[str, Any], trainer: "pl.Trainer", named: Sequence[str], typed: dict[str, Any]
) -> tuple[str, str]:
    """What to do, and its command."""
    kept = {name: value for name, value in typed.items() if name not in STARTS}
    if config["image_tokens"] == "zero":
        sees = {name: value for name, value in kept.items() if name != "image_tokens"}
        return "This search was blind, and tells no K. Next, one that sees:", command(named, sees)
    if not trainer.lightning_module.bandit.verdict().found:
        key = "max_epoch" if config["max_steps"] is None else "max_steps"
        longer = kept | {"resume_from": last_of(trainer), key: LONGER * config[key]}
        return "Next, at least twice as long in all:", command(named, longer)
    kept = {key: value for key, value in typed.items() if key not in OWN}
    words = [word.replace("dvp_search_", "dvp_adaption_") if word in NAMED else word for word in named]
    if config["use_adapter"] and not any(NAMED[word].get("use_adapter") for word in words if word in NAMED):
        kept["use_adapter"] = config["use_adapter"]  # else what the search's adapters have learnt is left
    return "Next:", command(words, kept | {"start_from": "search"})


def no_layer_given(config: dict[str, Any], named: Sequence[str], typed: dict[str, Any]) -> str:
    """What to know before a training at the default layer, which nobody has chosen: the command that finds K."""
    kept = {key: value for key, value in typed.items() if key not in (*OWN, "fast_dev_run")}  # which finds no K
    search = command([search_of(config), *(word for word in named if word not in NAMED)], kept)
    given = f"No insert_layer is given, so it trains at K = {config['insert_layer']}."
    return f"{given} To find K: {search}, then add start_from=search here."


def after_conversion(task: str, data_root: str) -> str:
    """Where the tables of a task lie now, and the command that searches K on them."""
    search = search_of({"datasets": task, "language_model": "BERT"})
    rows = min(NAMED[search].get("batch_size", 256), 256)
    typed = command([search], {"data_root": data_root} | on_cpu_without_gpus() | {"per_gpu_batchsize": rows})
    return f"The tables lie in {data_root}. Next (per_gpu_batchsize: what fits):\n  {typed}"


def command(named: Sequence[str], settings: dict[str, Any], verb: str = "") -> str:
    """The command line of a run with these named configs and settings, after a verb, if there is one."""
    words = [f"{key}={value}" for key, value in settings.items()]
    return f"python run.py {f'{verb} ' if verb else ''}with {shlex.join([*named, *words])}"
