"""BERT: the compressor asks with [CLS] as it enters layer K; [CLS] after the last layer is classified."""

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertModel
from transformers.masking_utils import create_bidirectional_mask

from dvp.backbones.base import LanguageBackbone, State
from dvp.backbones.tokenizer import Vocabulary


class Bert(LanguageBackbone):
    model_class = BertModel
    model_options = {"add_pooling_layer": False}  # the published model trains the pooler, but nothing reads it
    adapter_sites = ("attention.output.dropout", "output.dropout")
    adapter = {"reduction": 8, "activation": nn.ReLU, "init": lambda weight: nn.init.normal_(weight, std=0.01)}
    trained_beside_adapters = r"encoder\..*LayerNorm"
    vocabulary = Vocabulary("vocab.txt", begin=("cls_token", "[CLS]"), end=("sep_token", "[SEP]"))
    tiny = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    tiny_tokenizer = "BertTokenizer"
    adapters_per_layer = {"encoder.layer": 2}

    @property
    def layers(self) -> nn.ModuleList:
        return self.model.encoder.layer

    def embed(self, batch: dict[str, Tensor]) -> State:
        hidden = self.model.embeddings(input_ids=batch["input_ids"])  # (B, T, D)
        return self.attend(State(hidden, batch["attention_mask"].bool()))

    def attend(self, state: State) -> State:
        # Skipping an all-true mask would look at the data, and so wait for the device.
        mask = create_bidirectional_mask(
            self.model.config, state.hidden, state.keep, allow_is_bidirectional_skip=False
        )  # (B, 1, T, T)
        return replace(state, mask=mask)

    def run_layer(self, index: int, state: State) -> State:
        layer = self.layers[index]
        if index < len(self.layers) - 1:
            return replace(state, hidden=layer(state.hidden, state.mask))
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
        return state.hidden[:, state.slot.stop]  # (B, D)
