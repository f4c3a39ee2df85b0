"""LLaMA: the compressor asks with the hidden state at </s>; the normed hidden state at </s> is classified."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import LlamaModel
from transformers.masking_utils import create_causal_mask

from dvp.backbones.base import LanguageBackbone, State


class Llama(LanguageBackbone):
    model_class = LlamaModel
    adapter_sites = ("self_attn.o_proj", "mlp")
    adapter = {"reduction": 64, "activation": nn.SiLU, "init": nn.init.xavier_uniform_}
    trained_beside_adapters = r"layernorm|^model\.norm\."
    compressor_width = 512
    token_types = False
    head_width = 1 / 8
    tokenizer_options = {"add_eos_token": True}

    @property
    def layers(self) -> nn.ModuleList:
        return self.model.layers

    def embed(self, batch: dict[str, Tensor]) -> State:
        ids = batch["input_ids"]  # (B, T)
        end = (ids == self.model.config.eos_token_id).int().argmax(1)  # (B,) the first </s>
        return self.attend(State(self.model.embed_tokens(ids), batch["attention_mask"].bool(), end=end))

    def attend(self, state: State) -> State:
        positions = torch.arange(state.hidden.shape[1], device=state.hidden.device)[None]  # (1, T)
        mask = create_causal_mask(
            self.model.config, state.hidden, state.keep, None, positions, allow_is_causal_skip=False
        )  # (B, 1, T, T)
        return replace(state, mask=mask, positions=self.model.rotary_emb(state.hidden, positions))

    def run_layer(self, index: int, state: State) -> State:
        layer = self.layers[index]
        hidden = layer(state.hidden, attention_mask=state.mask, position_embeddings=state.positions)
        return replace(state, hidden=hidden)

    def query(self, state: State) -> Tensor:
        return self._at_end(state)[:, None]  # (B, 1, D)

    def read_out(self, state: State) -> Tensor:
        return self.model.norm(self._at_end(state))  # (B, D)

    def _at_end(self, state: State) -> Tensor:
        rows = torch.arange(len(state.end), device=state.end.device)
        return state.hidden[rows, state.end + state.offset]  # (B, D)
