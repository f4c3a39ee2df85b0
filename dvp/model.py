"""Dynamic Visual Prompting, the forward pass: text layers, the visual prompt put in at layer K, the layers above.

Legend: B batch, N image tokens, Dv their width, T text tokens, D hidden, K insert layer, L layers, R rows that are read
out (B, or ScienceQA's labelled tokens), C answers (or the vocabulary).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dvp.adapters import ADAPTERS, freeze
from dvp.backbones import LanguageBackbone, State
from dvp.compressor import VisualTokenCompressor
from dvp.families import layers_in
from dvp.vision import Seen


class DVP(nn.Module):
    """A language model that sees. `arms` compressors: one for each K of an adaption, or None: one for every layer, to
    search with.

    `vision` maps a batch to what is seen, image tokens (B, N, Dv) and more; `vision_width` is Dv. `head`: a module
    from what is read out to logits, or the number of answers that a classifier made here chooses from. `prefix` puts
    what else is seen into the text's first state.
    """

    def __init__(
        self,
        vision: nn.Module,
        vision_width: int,
        backbone: LanguageBackbone,
        head: int | nn.Module,
        *,
        prefix: nn.Module | None = None,
        arms: int | None = 1,
        num_heads: int = 12,
        dropout: float = 0.1,
        compressor_width: int | None = None,
        prompt_tokens: int = 1,
    ):
        super().__init__()
        size = backbone.hidden_size
        self.vision = vision
        self.backbone = backbone
        self.compressors = nn.ModuleList(
            VisualTokenCompressor(
                vision_width,
                size,
                compressor_width or backbone.compressor_width,
                num_heads,
                dropout,
                backbone.token_types,
                prompt_tokens,
            )
            for _ in range(len(backbone.layers) if arms is None else arms)
        )
        self.head = classifier(size, int(size * backbone.head_width), head) if isinstance(head, int) else head
        self.prefix, self.prompt_tokens = prefix, prompt_tokens

    @property
    def num_layers(self) -> int:
        """L, the number of places K that the prompt can take."""
        return len(self.backbone.layers)

    def forward(self, batch: dict[str, Tensor], insert_layer: int | Sequence[int]) -> Tensor:
        """Logits (R, C) of the batch with the prompt put in before layer `insert_layer`.

        Before each of several layers a prompt of its own is drawn, which takes the place of the one before (as deep
        visual prompts do: Jia et al., "Visual Prompt Tuning", ECCV 2022).
        """
        state, image = self.embed(batch)
        return self.logits(self.run(state, self.inserts(insert_layer, image)))

    def forward_arms(self, batch: dict[str, Tensor], insert_layers: Iterable[int]) -> dict[int, Tensor]:
        """Logits (R, C) for each distinct insert layer.

        Image and text-only trunk are computed once for all. What branches off the trunk runs on beside it as one batch.
        """
        arms = sorted(set(insert_layers))
        if len(arms) == 1:
            return {arms[0]: self(batch, arms[0])}
        state, image = self.embed(batch)
        rows, inserts = len(state.hidden), self.inserts(arms, image)

        def branch_off(arm: int, state: State) -> State:
            branch = inserts[arm](state.rows(slice(rows)))
            others = state.rows(slice(rows if arm == arms[-1] else 0, None))  # in the end without the trunk
            return others.joined(branch)  # (trunk and arms so far * B, T, D)

        if state.slot.start == state.slot.stop:  # an empty slot makes the trunk as long as its branches
            blank = state.hidden.new_zeros(rows, self.prompt_tokens, self.backbone.hidden_size)
            state = self.backbone.put_in(state, blank, seen=False)
        state = self.run(state, {arm: partial(branch_off, arm) for arm in arms})
        branches = [state.rows(slice(first, first + rows)) for first in range(0, len(arms) * rows, rows)]
        return dict(zip(arms, self.logits(*branches).chunk(len(arms)), strict=True))

    def embed(self, batch: dict[str, Tensor]) -> tuple[State, Seen | None]:
        """The state before the first layer, and what is seen; None where the batch has no picture."""
        image = self.vision(batch)
        state = self.backbone.embed(batch)
        return (self.prefix(state, batch, image) if self.prefix else state), image

    def inserts(self, insert_layer: int | Sequence[int], image: Seen | None) -> dict[int, Callable[[State], State]]:
        """By layer, what puts the prompt into a state there, drawn from what is seen; nothing where nothing is seen."""

        def insert(compressor: VisualTokenCompressor, state: State) -> State:
            return compressor.insert(self.backbone, state, image.tokens) if image else state

        return {layer: partial(insert, one) for layer, one in self.compressors_at(insert_layer).items()}

    def compressors_at(self, insert_layer: int | Sequence[int]) -> dict[int, VisualTokenCompressor]:
        """By layer, the compressor that draws the prompt there: of as many as layers each its own, else a search's."""
        layers = layers_in(insert_layer)
        if len(layers) == len(self.compressors):
            return dict(zip(layers, self.compressors, strict=True))
        return {layer: self.compressors[layer if len(self.compressors) > 1 else 0] for layer in layers}

    def run(self, state: State, before: Mapping[int, Callable[[State], State]]) -> State:
        """The state after all layers; `before` says what happens to it before some of them."""
        for index in range(self.num_layers):
            if index in before:
                state = before[index](state)
            state = self.backbone.run_layer(index, state)
        return state

    def logits(self, *states: State) -> Tensor:
        """Logits (states * R, C) of what is read out of states after the last layer."""
        read = torch.cat([self.backbone.read_out(state) for state in states])
        return self.head(read.to(next(self.head.parameters()).dtype)).float()


def adapt_language_model(
    backbone: LanguageBackbone, reduction: int | None = None, kind: bool | str = True, **settings: Any
) -> None:
    """Freeze a language model but for new adapters and its family's norms.

    kind: a key of ADAPTERS. settings: of adapters of its kind, those of a run; others are not looked at. Raises
    UserError where adapters find no place.
    """
    row = ADAPTERS[kind]
    backbone.adapted = row.add_to(backbone, **settings | ({"reduction": reduction} if reduction else {}))
    freeze(backbone, "|".join(filter(None, (row.trained, row.beside and backbone.trained_beside_adapters))))


def classifier(size: int, width: int, num_answers: int) -> nn.Sequential:
    """The answer head: Linear, LayerNorm, GELU, Linear, initialised as BERT's."""
    head = nn.Sequential(
        OrderedDict(
            dense=nn.Linear(size, width), norm=nn.LayerNorm(width), act=nn.GELU(), answer=nn.Linear(width, num_answers)
        )
    )
    for layer in (head.dense, head.answer):
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    return head
