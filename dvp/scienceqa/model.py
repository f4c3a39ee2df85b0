"""LLaMA with a slot for the visual prompt: sequence, masks, the slot's filling at layer K, loss.

Legend: B batch, T positions, D hidden, n rows with image, N image tokens, Dv their width, C class tokens, V vocabulary.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, CLIPVisionModel, LlamaForCausalLM

from dvp.adapters import inject_adapters
from dvp.compressor import VisualTokenCompressor
from dvp.scienceqa.adapters import RoutedAdapter
from dvp.scienceqa.tokens import IGNORED, Layout

CLASS_TOKEN_EVERY = 4  # blocks of CLIP; of one with fewer, after the last


def class_tokens_of(blocks: int) -> int:
    """C, how many class tokens a CLIP of so many blocks gives."""
    return max(1, blocks // CLASS_TOKEN_EVERY)


@dataclass(frozen=True)
class State:
    """Where a forward pass stands between two layers. Masks are (B, 1, T, columns), True where a column is seen."""

    hidden: Tensor  # (B, T, D)
    front: Tensor  # the mask of the layers before K
    back: Tensor  # the mask of the layers from K on
    rotary: tuple[Tensor, Tensor]
    cache: Cache | None = None


class ScienceQAModel(nn.Module):
    """A frozen CLIP and a frozen LLaMA with what is trained: adapters, projector, modality vectors, slot, compressors.

    `arms` compressors: one for adaption, one for every layer while searching.
    """

    def __init__(
        self,
        vision: CLIPVisionModel,
        llama: LlamaForCausalLM,
        layout: Layout,
        *,
        arms: int = 1,
        num_heads: int = 16,
        compressor_width: int = 512,
        projector_width: int = 128,
        adapter: dict[str, Any] | None = None,
        dropout: float = 0.1,
        as_published: bool = False,
    ):
        super().__init__()
        size, image_size = llama.config.hidden_size, vision.config.hidden_size
        self.layout, self.as_published = layout, as_published
        self.vision = vision.requires_grad_(False)
        self.llama = llama.requires_grad_(False)
        options = adapter or {}
        inject_adapters(llama, ("input_layernorm",), lambda: RoutedAdapter(size, **options))
        inject_adapters(
            vision, ("layer_norm1",), lambda: RoutedAdapter(image_size, by_first_row=as_published, **options)
        )
        self.projector = nn.Sequential(
            nn.Linear(image_size, projector_width), nn.SiLU(), nn.Linear(projector_width, size)
        )
        self.modality = nn.Embedding(2, size)  # row 0: no image, row 1: image
        self.slot = nn.Parameter(torch.zeros(1, size))
        self.compressors = nn.ModuleList(
            VisualTokenCompressor(image_size, size, compressor_width, num_heads, dropout, token_types=False)
            for _ in range(arms)
        )
        self.train()  # models come loaded in eval mode, in which gradients are never checkpointed

    @property
    def num_layers(self) -> int:
        """The number of places K that the prompt can take."""
        return len(self.llama.model.layers)

    def forward(self, batch: dict[str, Tensor], insert_layer: int) -> Tensor:
        """The loss: cross-entropy, mean over the labelled tokens of the batch."""
        return self.forward_arms(batch, [insert_layer])[insert_layer]

    def forward_arms(self, batch: dict[str, Tensor], insert_layers: Iterable[int]) -> dict[int, Tensor]:
        """The loss for each distinct insert layer; image and text-only trunk are computed once for all."""
        trunk, image_tokens = self.embed(batch)
        losses, done = {}, 0
        for layer in sorted(set(insert_layers)):
            trunk, done = self.run(trunk, done, layer, trunk.front), layer
            losses[layer] = self._loss(self._finish(trunk, image_tokens, batch, layer), batch["labels"])
        return losses

    def read(self, batch: dict[str, Tensor], insert_layer: int, cache: Cache | None = None) -> Tensor:
        """The last hidden states (B, T, D), normed, for the language model's head."""
        state, image_tokens = self.embed(batch)
        state = self.run(replace(state, cache=cache), 0, insert_layer, state.front)
        return self._finish(state, image_tokens, batch, insert_layer)

    def embed(self, batch: dict[str, Tensor]) -> tuple[State, Tensor | None]:
        """The state before the first layer, and the tokens (n, N, Dv) of the images, if there are any."""
        has_image, hidden = batch["has_image"], self.llama.model.embed_tokens(batch["input_ids"])  # (B, T, D)
        hidden[:, 0] = self.modality(has_image.long()).to(hidden.dtype)
        image_tokens = None
        if has_image.any():
            class_tokens, image_tokens = self.see(batch)
            hidden[has_image, self.layout.image] = self.projector(class_tokens).to(hidden.dtype)
            hidden[has_image, self.layout.slot] = self.slot.to(hidden.dtype)
        places = torch.arange(hidden.shape[1], device=hidden.device).expand(hidden.shape[:2])
        return self.state(hidden, places, places, has_image), image_tokens

    def see(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Class tokens (n, C, Dv) after every fourth block of CLIP, and all tokens (n, N, Dv) of the last block."""
        states = self.vision(pixel_values=batch["pixel_values"], output_hidden_states=True).hidden_states
        chosen = states[CLASS_TOKEN_EVERY::CLASS_TOKEN_EVERY] or states[-1:]
        class_tokens = torch.stack([state[:, 0] for state in chosen], dim=1)
        # Published: rows without image have a picture of zeros, which is encoded, too, and routes if it is the first.
        pictured = batch["has_image"] if len(states[-1]) == len(batch["has_image"]) else ...
        return class_tokens[pictured], states[-1][pictured]

    def state(self, hidden: Tensor, places: Tensor, columns: Tensor, has_image: Tensor) -> State:
        """The state of tokens at positions `places` (B, T) that look at positions `columns` (B, columns)."""
        row, column = places[:, None, :, None], columns[:, None, None]
        # The modality token routes the adapters; no other position attends to it.
        seen = (column <= row) & ((column != 0) | (row == 0))  # (B, 1, T, columns)
        slot = self.layout.slot
        front = seen & ~(has_image[:, None, None, None] & (column == slot) & (row > slot))
        # Published: the mask is edited in place, so that the text never sees the prompt, at any layer.
        back = front if self.as_published else seen
        return State(hidden, front, back, self.llama.model.rotary_emb(hidden, places))

    def run(self, state: State, start: int, stop: int, mask: Tensor) -> State:
        """The state after the layers from `start` up to, not with, `stop`."""
        hidden = state.hidden
        for layer in self.llama.model.layers[start:stop]:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=state.rotary, past_key_values=state.cache)
        return replace(state, hidden=hidden)

    def insert(self, state: State, image_tokens: Tensor, batch: dict[str, Tensor], layer: int) -> State:
        """The state with the prompt in its slot, asked for by the mean of the prompt's text tokens."""
        compressor, has_image = self.compressors[layer if len(self.compressors) > 1 else 0], batch["has_image"]
        dtype, asking = compressor.merge.weight.dtype, batch["prompt"][has_image, :, None]  # (n, T, 1)
        query = (state.hidden[has_image].to(dtype) * asking).sum(1, keepdim=True) / asking.sum(1, keepdim=True)
        hidden = state.hidden.clone()
        hidden[has_image, self.layout.slot] = compressor(query, image_tokens.to(dtype))[:, 0].to(hidden.dtype)
        return replace(state, hidden=hidden)

    def go_on(
        self, hidden: Tensor, places: Tensor, columns: Tensor, has_image: Tensor, insert_layer: int, cache: Cache
    ) -> Tensor:
        """The last hidden states (B, T, D), normed, of tokens (B, T, D) whose predecessors are in the cache."""
        state = replace(self.state(hidden, places, columns, has_image), cache=cache)
        state = self.run(state, 0, insert_layer, state.front)
        return self.llama.model.norm(self.run(state, insert_layer, self.num_layers, state.back).hidden)

    def _finish(self, state: State, image_tokens: Tensor | None, batch: dict[str, Tensor], insert_layer: int) -> Tensor:
        if image_tokens is not None:
            state = self.insert(state, image_tokens, batch, insert_layer)
        return self.llama.model.norm(self.run(state, insert_layer, self.num_layers, state.back).hidden)

    def _loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        labelled = labels[:, 1:] != IGNORED
        logits = self.llama.lm_head(hidden[:, :-1][labelled]).float()  # (labelled tokens, V)
        # A batch whose prompts fill the whole length has nothing to learn from: 0, not 0 / 0.
        return F.cross_entropy(logits, labels[:, 1:][labelled], reduction="sum") / labelled.sum().clamp(min=1)
