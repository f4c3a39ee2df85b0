"""Encoders: the compressor asks with [CLS] as it enters layer K; [CLS] after the last layer is classified."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.masking_utils import create_bidirectional_mask

from dvp.backbones.base import SLIDING, LanguageBackbone, State, hidden_of


class Encoder(LanguageBackbone):
    adapter = {"reduction": 8, "activation": nn.ReLU, "init": lambda weight: nn.init.normal_(weight, std=0.01)}

    def embed(self, batch: dict[str, Tensor]) -> State:
        ids, places = batch["input_ids"], {}
        if self.first_position is not None:
            end = self.first_position + ids.shape[1]
            places = {"position_ids": torch.arange(self.first_position, end, device=ids.device)[None]}
        hidden = self.model.embeddings(input_ids=ids, **places)  # (B, T, D)
        return self.attend(State(hidden, batch["attention_mask"].bool()))

    def attend(self, state: State) -> State:
        # Skipping an all-true mask would look at the data, and so wait for the device.
        mask = create_bidirectional_mask(
            self.model.config, state.hidden, state.keep, allow_is_bidirectional_skip=False
        )  # (B, 1, T, T)
        places = torch.arange(state.hidden.shape[1], device=state.hidden.device)
        near = None
        if SLIDING in self.layer_types:
            apart = (places[:, None] - places).abs()  # (T, T)
            seen = (apart <= self.model.config.local_attention // 2) | self.prompted(state, places[None])[:, None, None]
            near = mask & seen | (apart == 0)  # what is not kept sees itself, so that no row of the softmax is empty
        return replace(state, mask=mask, near=near, positions=self.rotary_positions(state.hidden, places[None]))

    def run_layer(self, index: int, state: State) -> State:
        layer, options = self.layers[index], self.layer_options(index, state)
        if index < len(self.layers) - 1 or self.rotary:  # ModernBERT's parts are others
            return replace(state, hidden=hidden_of(layer(state.hidden, **options)))
        # Of the last layer one position is read, so of all others only keys and values are computed.
        own, hidden, position = layer.attention.self, state.hidden, slice(state.slot.stop, state.slot.stop + 1)
        inputs = ((own.query, hidden[:, position]), (own.key, hidden), (own.value, hidden))
        # Query (B, heads, 1, D / heads), key and value (B, heads, T, D / heads)
        q, k, v = (project(x).unflatten(-1, (own.num_attention_heads, -1)).transpose(1, 2) for project, x in inputs)
        attended = F.scaled_dot_product_attention(q, k, v, state.mask[:, :, position], own.dropout.p * self.training)
        attended = layer.attention.output(attended.transpose(1, 2).flatten(2), hidden[:, position])  # (B, 1, D)
        return replace(state, hidden=layer.feed_forward_chunk(attended), slot=slice(0, 0))

    def query(self, state: State) -> Tensor:
        return state.hidden[:, state.slot.stop : state.slot.stop + 1]  # (B, 1, D)

    def read_out(self, state: State) -> Tensor:
        read = state.hidden[:, state.slot.stop]  # (B, D)
        return self.part("norm")(read) if "norm" in self.parts else read
