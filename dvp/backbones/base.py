"""What every language model must offer so that a visual prompt can be put in front of any of its layers.

Legend: B batch, T text tokens (with what is in front of them), S encoder tokens (T5), D hidden, P prompt tokens.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel

from dvp.cpu.dropout import replace_dropout


@dataclass(frozen=True)
class State:
    """Where a forward pass stands between two layers; run_layer and prepend return a new one."""

    hidden: Tensor  # (B, T, D)
    keep: Tensor  # (B, T) bool, False at padding
    offset: int = 0  # prompt tokens in front of the text
    mask: Tensor | None = None  # the layers' attention mask, made from keep
    positions: Any = None  # T5: relative position bias; LLaMA: rotary cosines and sines
    memory: Tensor | None = None  # T5: encoder output (B, S, D)
    memory_mask: Tensor | None = None  # T5: attention mask over the memory
    fixed_query: Tensor | None = None  # T5: (B, 1, D), the same at every layer
    end: Tensor | None = None  # LLaMA: (B,) position of </s> in the text

    def rows(self, chosen: slice) -> "State":
        """The state of some of the rows."""
        return replace(self, **{name: part[chosen] for name, part in self._parts()})

    def joined(self, other: "State") -> "State":
        """One state of the rows of both, which must be equally long, so that a layer runs once for all of them."""
        return replace(self, **{name: torch.cat([part, getattr(other, name)]) for name, part in self._parts()})

    def _parts(self) -> list[tuple[str, Tensor]]:
        names = ("hidden", "keep", "mask", "memory", "memory_mask", "fixed_query", "end")
        return [(name, getattr(self, name)) for name in names if getattr(self, name) is not None]


class LanguageBackbone(nn.Module):
    """A Hugging Face language model whose layers are run one at a time.

    Knows nothing of images, tasks or the search. Hugging Face layer signatures stay in the subclasses.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    model_options: ClassVar[dict] = {}  # further arguments of from_pretrained
    adapter_sites: ClassVar[tuple[str, ...]]  # endings of the module names whose output goes through an adapter
    adapter: ClassVar[dict]  # reduction, activation and initialisation of the adapters
    trained_beside_adapters: ClassVar[str]  # regular expression over parameter names
    compressor_width: ClassVar[int | None] = None  # inner width of the compressor; None: that of the language model
    token_types: ClassVar[bool] = True  # whether the compressor marks text and prompt with a type embedding
    head_width: ClassVar[float] = 2.0  # middle width of the classifier, in hidden sizes
    tokenizer_options: ClassVar[dict] = {}

    def __init__(self, model: PreTrainedModel, as_published: bool = False):
        super().__init__()
        replace_dropout(model)
        self.model = model
        self.as_published = as_published

    @property
    def layers(self) -> nn.ModuleList:
        """The layers before any of which the prompt can be inserted."""
        raise NotImplementedError

    @property
    def hidden_size(self) -> int:
        """Width D of the hidden states, from the checkpoint's own config."""
        return self.model.config.hidden_size

    @classmethod
    def tokenizer(cls, name_or_path: str) -> Any:
        """The family's tokenizer: it ends every text with its end token and pads with id 0 where it has no own pad."""
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **cls.tokenizer_options)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token  # LLaMA: the published padding id, 0, is <unk>
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        return tokenizer

    def embed(self, batch: dict[str, Tensor]) -> State:
        """The state before the first layer, from `input_ids` and `attention_mask` (B, T)."""
        raise NotImplementedError

    def attend(self, state: State) -> State:
        """The state with the mask (and positions) that its length and padding call for."""
        raise NotImplementedError

    def run_layer(self, index: int, state: State) -> State:
        """The state after layer `index` of the Hugging Face model."""
        raise NotImplementedError

    def query(self, state: State) -> Tensor:
        """What the compressor asks the image with, (B, 1, D)."""
        raise NotImplementedError

    def read_out(self, state: State) -> Tensor:
        """The hidden state (B, D) that is classified."""
        raise NotImplementedError

    def prepend(self, state: State, prompt: Tensor, keep: bool = True) -> State:
        """The state with `prompt` (B, P, D) in front of the text, in the place of an earlier one.

        It is seen by all, or with keep=False by none: an empty slot.
        """
        hidden = torch.cat([prompt.to(state.hidden.dtype), state.hidden[:, state.offset :]], dim=1)  # (B, P + T, D)
        mask = torch.cat([state.keep.new_full(prompt.shape[:2], keep), state.keep[:, state.offset :]], dim=1)
        return self.attend(replace(state, hidden=hidden, keep=mask, offset=prompt.shape[1]))
