"""The devices of a run: how many there are, what they compute in, how they share the work."""

from typing import Any

import torch
from pytorch_lightning.strategies import Strategy

from dvp.cpu.memory import keep_freed_memory
from dvp.errors import UserError
from dvp.families import family_named
from dvp.kinds import KINDS
from dvp.runs.sharded import ShardedFrozen
from dvp.tasks import TASKS


def prepare_devices(num_gpus: int) -> None:
    """Set this process up for its devices, GPUs or the CPU; raises UserError when the machine has fewer GPUs."""
    if not num_gpus:
        keep_freed_memory()
    available = torch.cuda.device_count()
    if num_gpus > available:
        raise UserError(
            f"num_gpus={num_gpus} but this machine has {available}: ask for fewer, or num_gpus=0 for the CPU."
        )


def strategy_of(config: dict[str, Any]) -> str | Strategy:
    """The configured strategy, or Lightning's name of it; auto becomes DDP on more than one device.

    Raises UserError where the kind of task is not offered in pieces.
    """
    kind = KINDS[TASKS[config["datasets"]].kind]
    # No gradient get, in a search, the compressors of all arms but one; where a kind of task says so, others.
    some_unused = config["search_stage"] or kind.SOME_UNUSED
    if config["strategy"] == "fsdp":
        if not kind.SHARDED:
            raise UserError(f"strategy=fsdp is not offered for {config['datasets']}: take strategy=ddp.")
        return ShardedFrozen(find_unused_parameters=some_unused)
    if config["strategy"] != "auto" or config["devices"] == 1:
        return config["strategy"]
    return "ddp_find_unused_parameters_true" if some_unused else "ddp"


def precision_of(config: dict[str, Any]) -> str:
    """Lightning's name of the configured precision; auto becomes what the devices and the language model take."""
    wanted, fits = config["precision"], family_named(config["language_model"]).fits_half
    if wanted == "auto":
        on_gpu = config["num_gpus"] > 0
        wanted = 32 if not on_gpu else "bf16" if torch.cuda.is_bf16_supported() else 16 if fits else 32
    return {16: "16-mixed", 32: "32-true", "bf16": "bf16-mixed"}[wanted]
