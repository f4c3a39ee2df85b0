"""Dynamic Visual Prompting, the forward pass: text layers, one visual token put in at layer K, the layers above.

Legend: B batch, N image tokens, Dv their width, T text tokens, D hidden, K insert layer, L layers, R rows that are read
out (B, or ScienceQA's labelled tokens), C answers (or the vocabulary).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dvp.adapters import ADAPTERS, freeze
from dvp.backbones import LanguageBackbone, State
from dvp.compressor import VisualTokenCompressor
from dvp.vision import Seen


class DVP(nn.Module):
    """A language model that sees. `arms` compressors: one for adaption, or None: one for every layer, to search with.

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
            )
            for _ in range(len(backbone.layers) if arms is None else arms)
        )
        self.head = classifier(size, int(size * backbone.head_width), head) if isinstance(head, int) else head
        self.prefix = prefix

    @property
    def num_layers(self) -> int:
        """L, the number of places K that the prompt can take."""
        return len(self.backbone.layers)

    def forward(self, batch: dict[str, Tensor], insert_layer: int) -> Tensor:
        """Logits (R, C) of the batch with the prompt put in before layer `insert_layer`."""
        return self.forward_arms(batch, [insert_layer])[insert_layer]

    def forward_arms(self, batch: dict[str, Tensor], insert_layers: Iterable[int]) -> dict[int, Tensor]:
        """Logits (R, C) for each distinct insert layer.

        Image and text-only trunk are computed once for all. What branches off the trunk runs on beside it as one batch.
        """
        arms = sorted(set(insert_layers))
        state, image = self.embed(batch)
        rows = len(state.hidden)

        def branch_off(arm: int, state: State) -> State:
            branch = self.insert(arm, image, state.rows(slice(rows)))
            others = state.rows(slice(rows if arm == arms[-1] else 0, None))  # in the end without the trunk
            return others.joined(branch)  # (trunk and arms so far * B, T, D)

        if len(arms) == 1:
            state = self.run(state, {arms[0]: partial(self.insert, arms[0], image)})
            return {arms[0]: self.logits(state)}
        if state.slot.start == state.slot.stop:  # an empty slot makes the trunk as long as its branches
            state = self.backbone.put_in(state, state.hidden.new_zeros(rows, 1, self.backbone.hidden_size), seen=False)
        state = self.run(state, {arm: partial(branch_off, arm) for arm in arms})
        branches = [state.rows(slice(first, first + rows)) for first in range(0, len(arms) * rows, rows)]
        return dict(zip(arms, self.logits(*branches).chunk(len(arms)), strict=True))

    def embed(self, batch: dict[str, Tensor]) -> tuple[State, Seen | None]:
        """The state before the first layer, and what is seen; None where the batch has no picture."""
        image = self.vision(batch)
        state = self.backbone.embed(batch)
        return (self.prefix(state, batch, image) if self.prefix else state), image

    def insert(self, arm: int, image: Seen | None, state: State) -> State:
        """The state with the prompt that `arm` draws from what is seen."""
        return state if image is None else self.compressor(arm).insert(self.backbone, state, image.tokens)

    def compressor(self, arm: int) -> VisualTokenCompressor:
        """The compressor that draws the prompt for layer `arm`."""
        return self.compressors[arm if len(self.compressors) > 1 else 0]

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
