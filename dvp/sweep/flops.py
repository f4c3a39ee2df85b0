"""Floating-point operations of a search and of a sweep: counted on a few rows, times the rows that went through.

They follow from shapes alone, so that they are counted on torch's meta device: a large model costs no memory for it.
"""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dvp.build import build_data, build_empty
from dvp.model import DVP

ROWS = 8  # of the training split, its first
DRAWN = 32  # sets of arms that were scored together, counted at most; the others cost what these do on average


def sweep_flops(config: dict[str, Any], cells: Sequence[dict[str, Any]]) -> float:
    """Operations of all trainings in these cells, forward and backward; validation is left out."""
    model, batch = _model_and_rows(config | {"insert_layer": 0})
    each = {layer: _training(model, batch, layer) for layer in {cell["layer"] for cell in cells}}
    return sum(each[cell["layer"]] * cell["updates"] * config["batch_size"] for cell in cells)


def training_flops(config: dict[str, Any]) -> float:
    """Operations of one row in a training with this config, forward and backward."""
    model, batch = _model_and_rows(config)
    return _training(model, batch, config["insert_layer"])


def search_flops(config: dict[str, Any], search: dict[str, Any]) -> float:
    """Operations of a search with this config, its updates at random arms and its scorings."""
    model, batch = _model_and_rows(config)
    arms = range(model.num_layers)
    training = statistics.mean(_training(model, batch, arm) for arm in arms)
    sets = [frozenset(entry["arms"]) for entry in search["trace"]]  # an arm that is drawn twice is computed once
    sets += [frozenset([entry["best"]]) for entry in search["trace"] if "blind" in entry]
    counted = {drawn: _scoring(model, batch, drawn) for drawn in list(dict.fromkeys(sets))[:DRAWN]}
    known = [counted[drawn] for drawn in sets if drawn in counted]
    scoring = statistics.mean(known) * len(sets) if known else 0.0
    return training * search["updates"] * config["batch_size"] + scoring * max(1, config["batch_size"] // 2)


def _model_and_rows(config: dict[str, Any]) -> tuple[DVP, dict[str, Any]]:
    """The model and a batch, shapes alone, image tokens there already unless they are encoded live."""
    config = config | {"start_from": None, "load_path": "", "resume_from": None, "quantize": None}
    data, model = build_data(config, ("fit",), tell=False), build_empty(config).to("meta")
    rows = data.questions(data.task.train, "train")
    batch = data.reader.collate([rows[item] for item in range(min(ROWS, len(rows)))])
    batch = {name: value.to("meta") if torch.is_tensor(value) else value for name, value in batch.items()}
    if config["image_tokens"] in ("cache", "auto"):
        with torch.no_grad():
            batch["image_tokens"] = model.embed(batch)[1].tokens
    return model, batch


def _training(model: DVP, batch: dict[str, Any], layer: int | list[int]) -> float:
    """Operations of one row, forward and backward."""
    model.train()
    with _counting() as counter:
        model(batch, layer).sum().backward()  # a loss takes no operations to speak of, and some need values
    model.zero_grad()
    return counter.get_total_flops() / len(batch["input_ids"])


def _scoring(model: DVP, batch: dict[str, Any], arms: frozenset[int]) -> float:
    """Operations of one row that is scored at these arms."""
    model.eval()
    with torch.no_grad(), _counting() as counter:
        model.forward_arms(batch, arms)
    return counter.get_total_flops() / len(batch["input_ids"])


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter
