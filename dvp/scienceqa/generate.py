"""Answering: greedy decoding with a key-value cache, equal to the training forward position by position.

Legend: B batch, T positions of the longest prompt, D hidden, V vocabulary.
"""

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from dvp.scienceqa.adapters import RoutedAdapter
from dvp.scienceqa.model import ScienceQAModel

NEVER = 2**30  # position of padding columns: after every token, so no token sees them


@torch.no_grad()
def stream(model: ScienceQAModel, batch: dict[str, Tensor], insert_layer: int) -> Iterator[Tensor]:
    """Logits (B, V) for the token after each row's text, then for the one after the arg max of those, without end."""
    lengths, has_image = batch["length"], batch["has_image"]
    cache = DynamicCache()
    with _kept_routes(model.llama):
        hidden = model.read(batch, insert_layer, cache)  # (B, T, D)
        last = _at_the_end(hidden, lengths)
        places = torch.arange(hidden.shape[1], device=hidden.device)
        columns = torch.where(places < lengths[:, None], places, NEVER)  # (B, T)
        for step in itertools.count():
            logits = model.llama.lm_head(last).float()
            yield logits
            place = (lengths + step)[:, None]  # (B, 1)
            columns = torch.cat([columns, place], dim=1)
            embedded = model.llama.model.embed_tokens(logits.argmax(-1, keepdim=True))  # (B, 1, D)
            last = model.go_on(embedded, place, columns, has_image, insert_layer, cache)[:, 0]


def generate(
    model: ScienceQAModel, batch: dict[str, Tensor], insert_layer: int, eos: int, max_new_tokens: int = 64
) -> list[list[int]]:
    """The ids that each row is continued with, greedily, up to EOS, the layout's length, or max_new_tokens."""
    room = model.layout.max_length - batch["length"] + 1  # the last id is chosen, but never read
    chosen: list[Tensor] = []
    ended = torch.zeros_like(batch["has_image"])
    with closing(stream(model, batch, insert_layer)) as steps:
        for step, logits in enumerate(itertools.islice(steps, max_new_tokens), start=1):
            chosen.append(logits.argmax(-1))
            ended |= (chosen[-1] == eos) | (step >= room)
            if ended.all():
                break
    rows = torch.stack(chosen, dim=1).tolist()  # (B, steps)
    kept = [row[:limit] for row, limit in zip(rows, room.tolist(), strict=True)]
    return [row[: row.index(eos)] if eos in row else row for row in kept]


@torch.no_grad()
def letter_logits(model: ScienceQAModel, batch: dict[str, Tensor], insert_layer: int, letters: list[int]) -> Tensor:
    """Logits (B, letters) of these tokens after each row's text."""
    hidden = model.read(batch, insert_layer)
    return model.llama.lm_head(_at_the_end(hidden, batch["length"])).float()[:, letters]


def _at_the_end(hidden: Tensor, lengths: Tensor) -> Tensor:
    """Each row's state (B, D) at its own last position."""
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]


@contextmanager
def _kept_routes(root: nn.Module) -> Iterator[None]:
    """The adapters' shares of the first call hold inside: a decoding step has no first position to route by."""
    adapters = [module for module in root.modules() if isinstance(module, RoutedAdapter)]
    for adapter in adapters:
        adapter.keeps = True
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.keeps, adapter.kept = False, None
