"""Answering: greedy decoding with a key-value cache, equal to the training forward position by position.

Legend: B batch, T positions of the longest prompt, D hidden, V vocabulary.
"""

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from dvp.backbones import State
from dvp.model import DVP

NEVER = 2**30  # position of padding columns: after every token, so no token sees them


@torch.no_grad()
def stream(model: DVP, batch: dict[str, Tensor], insert_layer: int | list[int]) -> Iterator[Tensor]:
    """Logits (B, V) for the token after each row's text, then for the one after the arg max of those, without end."""
    lengths = batch["length"]
    rows = torch.arange(len(lengths), device=lengths.device)
    with _kept_routes(model.backbone):
        first, image = model.embed(batch | {"cache": DynamicCache(), "read": (rows, lengths - 1)})
        inserts = model.inserts(insert_layer, image)
        state, from_here = model.run(first, inserts), min(inserts)
        # The columns that the layers before K see and those from K on, by position; the cache holds them all.
        places = torch.arange(first.hidden.shape[1], device=lengths.device)
        columns = torch.where(places < lengths[:, None], places, NEVER)  # (B, T)
        before, after = first.keep, state.keep  # (B, T)
        for step in itertools.count():
            logits = model.logits(state)
            yield logits
            place = (lengths + step)[:, None]  # (B, 1)
            columns = torch.cat([columns, place], dim=1)
            before, after = (
                torch.cat([keep, torch.ones_like(place, dtype=torch.bool)], dim=1) for keep in (before, after)
            )
            embedded = model.backbone.embed_tokens(logits.argmax(-1, keepdim=True), place)  # (B, 1, D)
            read = rows, torch.zeros_like(rows)
            state = replace(first, hidden=embedded, keep=before, read=read, places=place, columns=columns)
            state = model.run(model.backbone.attend(state), {from_here: partial(_look_from_here_on, model, after)})


def _look_from_here_on(model: DVP, keep: Tensor, state: State) -> State:
    return model.backbone.attend(replace(state, keep=keep))


def generate(
    model: DVP,
    batch: dict[str, Tensor],
    insert_layer: int | list[int],
    eos: int,
    max_length: int,
    max_new_tokens: int = 64,
) -> list[list[int]]:
    """The ids that each row is continued with, greedily, up to EOS, `max_length` positions, or max_new_tokens."""
    room = max_length - batch["length"] + 1  # the last id is chosen, but never read
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


@contextmanager
def _kept_routes(root: nn.Module) -> Iterator[None]:
    """The adapters' shares of the first call hold inside: a decoding step has no first position to route by."""
    adapters = [module for name, module in root.named_modules() if name.endswith(".adapter")]
    for adapter in adapters:
        adapter.keeps = True
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.keeps, adapter.kept = False, None
