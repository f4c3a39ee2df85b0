"""LLaMA: the compressor asks with the hidden state at </s>; the normed hidden state at </s> is classified.

A batch may say that other positions ask and are read out: ScienceQA asks with the mean of the prompt's text.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, LlamaModel

from dvp.backbones.base import LanguageBackbone, State
from dvp.backbones.tokenizer import Vocabulary


class Llama(LanguageBackbone):
    model_class = LlamaModel
    headed_class = LlamaForCausalLM
    adapter_sites = ("self_attn.o_proj", "mlp")
    adapter = {"reduction": 64, "activation": nn.SiLU, "init": nn.init.xavier_uniform_}
    trained_beside_adapters = r"layernorm|^model\.norm\."
    compressor_width = 512
    token_types = False
    head_width = 1 / 8
    vocabulary = Vocabulary("tokenizer.model", begin=("bos_token", "<s>"), end=("eos_token", "</s>"))
    free_vocabulary = False
    tiny = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    tiny_tokenizer = "LlamaTokenizer"
    adapters_per_layer = {"layers": 2}
    read_token = "last"

    @property
    def layers(self) -> nn.ModuleList:
        return self.model.layers

    def embed(self, batch: dict[str, Tensor]) -> State:
        ids, keep = batch["input_ids"], batch["attention_mask"].bool()  # (B, T)
        # A batch may say what asks and what is read out; else it is the end of the text, its last position.
        end = keep & (keep.flip(1).cumsum(1).flip(1) == 1)  # (B, T)
        rows = torch.arange(len(ids), device=ids.device)
        read = batch["read"] if "read" in batch else (rows, end.int().argmax(1))
        state = State(self.model.embed_tokens(ids), keep, asking=batch.get("asking", end), read=read)
        return self.attend(replace(state, cache=batch.get("cache")))

    def attend(self, state: State) -> State:
        columns = state.columns  # (B or 1, C)
        if columns is None:
            columns = torch.arange(state.hidden.shape[1], device=state.hidden.device)[None]
        places = columns if state.places is None else state.places  # (B or 1, T)
        row, column = places[:, None, :, None], columns[:, None, None]
        # Causal; what is not kept sees itself, so that no row of the softmax is empty.
        mask = (column < row) & state.keep[:, None, None] | (column == row)  # (B, 1, T, C)
        return replace(state, mask=mask, positions=self.model.rotary_emb(state.hidden, places))

    def run_layer(self, index: int, state: State) -> State:
        hidden = self.layers[index](
            state.hidden, attention_mask=state.mask, position_embeddings=state.positions, past_key_values=state.cache
        )
        return replace(state, hidden=hidden)

    def query(self, state: State) -> Tensor:
        asking = state.asking[..., None].float()  # (B, T, 1)
        return (state.hidden.float() * asking).sum(1, keepdim=True) / asking.sum(1, keepdim=True).clamp(min=1)

    def read_out(self, state: State) -> Tensor:
        return self.model.norm(state.hidden[state.read])  # (R, D)
