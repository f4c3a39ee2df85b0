"""Where a run stands, beside its weights and what Lightning keeps: its place in the data, its generators, gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def progress_of(training: dict[str, Any]) -> dict[str, Any]:
    """How far a run had come by its training state: global_step, whole epochs, passes of the next one, and `within`.

    within: whether it stands within an epoch.
    """
    passes = training["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    ended = bool(passes["is_last_batch"])
    done = 0 if ended else passes["current"]["processed"]
    return {
        "global_step": training["global_step"], "epochs": training["epoch"] + ended, "passes": done, "within": done > 0
    }  # fmt: skip


def reopen_epoch(training: dict[str, Any]) -> None:
    """Count the epoch of a training state as begun, no more, where max_steps ended it early; Lightning counts it."""
    epochs = training["loops"]["fit_loop"]["epoch_progress"]
    if progress_of(training)["within"] and epochs["current"]["processed"] == epochs["current"]["ready"]:
        for count in epochs.values():
            count["processed"] -= 1


def moments(states: list[dict[str, Any]]) -> dict[str, Tensor]:
    """What optimisers remember of each weight by their states, named by both."""
    names, found = {}, {}
    for state in states:
        for group in state["param_groups"]:
            names |= dict(zip(group.get("params", ()), group.get("names", ()), strict=False))
        for number, kept in state["state"].items():
            found |= {f"{what} of {names.get(number, number)}": one for what, one in kept.items()}
    return {name: one for name, one in found.items() if isinstance(one, Tensor)}


# Generators. Torch's alone: nothing in a training draws from python's or numpy's.


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """The state of all generators that this process draws from."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def begin_streams(
    states: list[dict[str, Tensor]], device: torch.device, seed: int, updates: int, *, rank: int, ranks: int
) -> None:
    """Let every rank draw from a stream of its own: the one of its `states`, or a new one where there are none.

    The states of another number of ranks tell nothing; this is said, and the streams begin anew.
    """
    if len(states) == ranks:
        torch.set_rng_state(states[rank]["cpu"])
        if "cuda" in states[rank] and device.type == "cuda":
            torch.cuda.set_rng_state(states[rank]["cuda"], device)
    elif states:
        if rank == 0:
            print(f"Dropout begins anew: the checkpoint is of {len(states)} process(es), this run of {ranks}.")
        _seed_generators(seed, rank, updates)
    elif rank:  # the first goes on with the stream that made the weights, which are alike on all
        _seed_generators(seed, rank)


def _seed_generators(*key: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


# Gradients that an update has come to before its last pass


def accumulated(module: nn.Module, total: Callable[[Tensor], Tensor], ranks: int) -> dict[str, Tensor]:
    """The gradients so far, by parameter, as the mean over the ranks; `total` is the sum of a tensor over them.

    Without those that no rank has: to have none is not to have zeros, which an optimiser would act upon.
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if ranks == 1:
        return {name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None}
    device = next(iter(trained.values())).device
    has = total(torch.tensor([parameter.grad is not None for parameter in trained.values()], device=device).float())
    return {
        name: total(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()) / ranks
        for (name, parameter), count in zip(trained.items(), has.tolist(), strict=True)
        if count
    }


def take_up(module: nn.Module, gradients: dict[str, Tensor]) -> None:
    """Let the next pass add to these gradients."""
    for name, parameter in module.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter)
