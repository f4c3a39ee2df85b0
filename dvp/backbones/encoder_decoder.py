"""Encoder-decoders: the encoder reads the text, the prompt goes in front of the decoder's start token.

The mean of the encoder output asks the compressor; the last position is classified. The decoder is not causal over
[prompt, start], as published.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask

from dvp.backbones.base import LanguageBackbone, State, hidden_of


class EncoderDecoder(LanguageBackbone):
    adapter = {"reduction": 8, "activation": nn.ReLU, "init": lambda weight: nn.init.normal_(weight, std=0.01)}

    def embed(self, batch: dict[str, Tensor]) -> State:
        keep = batch["attention_mask"].bool()  # (B, S)
        memory = self._encode(batch["input_ids"], keep)  # (B, S, D)
        start = torch.full_like(batch["input_ids"][:, :1], self.model.config.decoder_start_token_id)
        hidden = self.model.decoder.dropout(self.model.decoder.embed_tokens(start))  # (B, 1, D)
        # Published: the query averages over padding too. Right: over the text alone.
        weight = torch.ones_like(keep) if self.as_published else keep
        weight = weight[..., None].to(memory.dtype)  # (B, S, 1)
        query = (memory * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)  # (B, 1, D)
        memory_mask = self._mask(hidden, keep, memory)  # (B, 1, 1, S)
        return self.attend(
            State(
                hidden,
                torch.ones_like(start, dtype=torch.bool),
                memory=memory,
                memory_mask=memory_mask,
                fixed_query=query,
            )
        )

    def attend(self, state: State) -> State:
        # The cross-attention mask has one row per decoder position, all alike: broadcast, it fits any length.
        mask = self._mask(state.hidden, state.keep)  # (B, 1, T, T)
        return replace(state, mask=mask, positions=self._relative_bias(self.model.decoder, state.hidden))

    def run_layer(self, index: int, state: State) -> State:
        hidden = self.layers[index](
            state.hidden,
            attention_mask=state.mask,
            position_bias=state.positions,
            encoder_hidden_states=state.memory,
            encoder_attention_mask=state.memory_mask,
        )
        return replace(state, hidden=hidden_of(hidden))

    def query(self, state: State) -> Tensor:
        return state.fixed_query  # (B, 1, D)

    def read_out(self, state: State) -> Tensor:
        decoder = self.model.decoder
        return decoder.dropout(decoder.final_layer_norm(state.hidden))[:, -1]  # (B, D)

    def _encode(self, ids: Tensor, keep: Tensor) -> Tensor:
        encoder = self.model.encoder
        hidden = encoder.dropout(encoder.embed_tokens(ids))  # (B, S, D)
        mask, bias = self._mask(hidden, keep), self._relative_bias(encoder, hidden)
        for block in encoder.block:
            hidden = hidden_of(block(hidden, attention_mask=mask, position_bias=bias))
        return encoder.dropout(encoder.final_layer_norm(hidden))

    def _mask(self, hidden: Tensor, keep: Tensor, memory: Tensor | None = None) -> Tensor:
        # An explicit mask also where all is kept: without one, scaled dot-product attention makes the decoder causal.
        return create_bidirectional_mask(
            self.model.config, hidden, keep, encoder_hidden_states=memory, allow_is_bidirectional_skip=False
        )

    def _relative_bias(self, stack: nn.Module, hidden: Tensor) -> Tensor | None:
        # Published: every block is called without a bias, so that only block 0, which owns the table, has one.
        # Right: all blocks share block 0's bias, as in stock T5.
        if self.as_published:
            return None
        length = hidden.shape[1]
        return stack.block[0].layer[0].SelfAttention.compute_bias(length, length, device=hidden.device)
