"""Floating-point operations of a search and of a sweep: counted on a few rows, times the rows that went through."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dvp.build import build
from dvp.module import DVPModule

ROWS = 8  # of the training split, its first


def sweep_flops(config: dict[str, Any], cells: Sequence[dict[str, Any]]) -> float:
    """Operations of all trainings in these cells, forward and backward; validation is left out."""
    module, batch = _model_and_rows(config | {"insert_layer": 0})
    each = {layer: _training(module, batch, layer) for layer in {cell["layer"] for cell in cells}}
    return sum(each[cell["layer"]] * cell["updates"] * config["batch_size"] for cell in cells)


def training_flops(config: dict[str, Any]) -> float:
    """Operations of one row in a training with this config, forward and backward."""
    module, batch = _model_and_rows(config)
    return _training(module, batch, config["insert_layer"])


def search_flops(config: dict[str, Any], search: dict[str, Any]) -> float:
    """Operations of a search with this config, its updates at random arms and its scorings."""
    module, batch = _model_and_rows(config)
    arms = range(module.model.num_layers)
    training = sum(_training(module, batch, arm) for arm in arms) / len(arms)
    scoring: dict[frozenset[int], float] = {}
    scored = 0.0
    for entry in search["trace"]:
        drawn = frozenset(entry["arms"])  # an arm that is drawn twice is computed once
        if drawn not in scoring:
            scoring[drawn] = _scoring(module, batch, drawn)
        scored += scoring[drawn] * max(1, config["batch_size"] // 2)
    return training * search["updates"] * config["batch_size"] + scored


def _model_and_rows(config: dict[str, Any]) -> tuple[DVPModule, dict[str, Any]]:
    """The model and a batch, its image tokens there already unless they are encoded live."""
    data, module = build(config | {"start_from": None, "load_path": "", "resume_from": None})
    rows = data.questions(data.task.train, "train")
    batch = data.reader.collate([rows[item] for item in range(min(ROWS, len(rows)))])
    if config["image_tokens"] in ("cache", "auto"):
        with torch.no_grad():
            batch["image_tokens"] = module.model.embed(batch)[1].tokens
    return module, batch


def _training(module: DVPModule, batch: dict[str, Any], layer: int | list[int]) -> float:
    """Operations of one row, forward and backward."""
    module.train()
    with _counting() as counter:
        module.task.loss(module.model(batch, layer), batch["targets"]).backward()
    module.zero_grad()
    return counter.get_total_flops() / len(batch["input_ids"])


def _scoring(module: DVPModule, batch: dict[str, Any], arms: frozenset[int]) -> float:
    """Operations of one row that is scored at these arms."""
    module.eval()
    with torch.no_grad(), _counting() as counter:
        module.model.forward_arms(batch, arms)
    return counter.get_total_flops() / len(batch["input_ids"])


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter
