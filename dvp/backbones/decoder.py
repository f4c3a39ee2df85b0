"""Decoders: the compressor asks with the hidden state at the end of the text; the normed one there is classified.

A batch may say that other positions ask and are read out: ScienceQA asks with the mean of the prompt's text.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from dvp.backbones.base import SLIDING, LanguageBackbone, State, hidden_of


class Decoder(LanguageBackbone):
    adapter = {"reduction": 64, "activation": nn.SiLU, "init": nn.init.xavier_uniform_}
    compressor_width = 512
    token_types = False
    head_width = 1 / 8
    read_token = "last"

    def embed(self, batch: dict[str, Tensor]) -> State:
        ids, keep = batch["input_ids"], batch["attention_mask"].bool()  # (B, T)
        # A batch may say what asks and what is read out; else it is the end of the text, its last position.
        end = keep & (keep.flip(1).cumsum(1).flip(1) == 1)  # (B, T)
        rows = torch.arange(len(ids), device=ids.device)
        read = batch["read"] if "read" in batch else (rows, end.int().argmax(1))
        hidden = self.embed_tokens(ids, torch.arange(ids.shape[1], device=ids.device)[None])
        state = State(hidden, keep, asking=batch.get("asking", end), read=read)
        return self.attend(replace(state, cache=batch.get("cache")))

    def embed_tokens(self, ids: Tensor, places: Tensor) -> Tensor:
        """The first states (B, T, D) of tokens (B, T) at places (B or 1, T) of their texts."""
        hidden = self.part("tokens")(ids)
        if self.first_position is None:
            return hidden
        return self.part("dropout")(hidden + self.part("positions")(self.first_position + places))

    def attend(self, state: State) -> State:
        columns = state.columns  # (B or 1, C)
        if columns is None:
            columns = torch.arange(state.hidden.shape[1], device=state.hidden.device)[None]
        places = columns if state.places is None else state.places  # (B or 1, T)
        row, column = places[:, None, :, None], columns[:, None, None]
        # Causal; what is not kept sees itself, so that no row of the softmax is empty.
        mask = (column < row) & state.keep[:, None, None] | (column == row)  # (B, 1, T, C)
        near = None
        if SLIDING in self.layer_types:
            seen = (row - column < self.model.config.sliding_window) | self.prompted(state, columns)[:, None, None]
            near = self._as_taken(mask & seen, state)
        positions = self.rotary_positions(state.hidden, places)
        return replace(state, mask=self._as_taken(mask, state), near=near, positions=positions)

    def run_layer(self, index: int, state: State) -> State:
        options = self.layer_options(index, state) | {"past_key_values": state.cache}
        return replace(state, hidden=hidden_of(self.layers[index](state.hidden, **options)))

    def query(self, state: State) -> Tensor:
        asking = state.asking[..., None].float()  # (B, T, 1)
        return (state.hidden.float() * asking).sum(1, keepdim=True) / asking.sum(1, keepdim=True).clamp(min=1)

    def read_out(self, state: State) -> Tensor:
        return self.part("norm")(state.hidden[state.read])  # (R, D)

    def _as_taken(self, mask: Tensor, state: State) -> Tensor:
        """The mask as the implementation of attention takes it: bool, or added to the scores."""
        if self.attention == "sdpa":
            return mask
        hidden = state.hidden
        return hidden.new_zeros(mask.shape).masked_fill(~mask, torch.finfo(hidden.dtype).min)
