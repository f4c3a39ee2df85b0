"""What every language model must offer so that a visual prompt can be put in front of any of its layers.

Legend: B batch, T text tokens (with what is in front of them), S encoder tokens (T5), D hidden, P prompt tokens.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dvp.backbones.tokenizer import Tokenizer, Vocabulary
from dvp.backbones.tokenizer_files import find_file, load_tokenizer
from dvp.cpu.dropout import replace_dropout
from dvp.files import read_json


@dataclass(frozen=True)
class State:
    """Where a forward pass stands between two layers; run_layer and put_in return a new one."""

    hidden: Tensor  # (B, T, D)
    keep: Tensor  # (B, T) bool, False where others do not look: padding, and a slot that is still empty
    # Where the prompt goes: an empty place in front of the text, or one that the sequence has
    slot: slice = field(default_factory=lambda: slice(0, 0))
    pictured: Tensor | None = None  # (B,) bool, rows that get a prompt; None: all
    prompt_hidden: bool = False  # whether the text does not see the prompt, as published in ScienceQA
    mask: Tensor | None = None  # the layers' attention mask, made from keep
    positions: Any = None  # T5: relative position bias; LLaMA: rotary cosines and sines
    memory: Tensor | None = None  # T5: encoder output (B, S, D)
    memory_mask: Tensor | None = None  # T5: attention mask over the memory
    fixed_query: Tensor | None = None  # T5: (B, 1, D), the same at every layer
    asking: Tensor | None = None  # LLaMA: (B, T) bool, the positions whose mean asks the compressor
    read: tuple[Tensor, Tensor] | None = None  # LLaMA: rows and positions (R,) that are read out
    places: Tensor | None = None  # LLaMA, while generating: positions (B, T) of hidden, and
    columns: Tensor | None = None  # those (B, C) of all that it looks at: what the cache holds, and hidden
    cache: Any = None  # LLaMA, while generating: keys and values of the earlier tokens

    def rows(self, chosen: slice) -> "State":
        """The state of some of the rows."""
        return replace(self, **{name: part[chosen] for name, part in self._parts()})

    def joined(self, other: "State") -> "State":
        """One state of the rows of both, which must be equally long, so that a layer runs once for all of them."""
        return replace(self, **{name: torch.cat([part, getattr(other, name)]) for name, part in self._parts()})

    def _parts(self) -> list[tuple[str, Tensor]]:
        names = ("hidden", "keep", "pictured", "mask", "memory", "memory_mask", "fixed_query", "asking")
        return [(name, getattr(self, name)) for name in names if getattr(self, name) is not None]


class LanguageBackbone(nn.Module):
    """A Hugging Face language model whose layers are run one at a time.

    Knows nothing of images, tasks or the search. Hugging Face layer signatures stay in the subclasses.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    headed_class: ClassVar[type[PreTrainedModel] | None] = None  # the same with a head that writes, if it has one
    model_options: ClassVar[dict] = {}  # further arguments of from_pretrained
    adapter_sites: ClassVar[tuple[str, ...]]  # endings of the module names whose output goes through an adapter
    adapter: ClassVar[dict]  # reduction, activation and initialisation of the adapters
    trained_beside_adapters: ClassVar[str]  # regular expression over parameter names
    peft_targets: ClassVar[dict[str, list[str]]] = {}  # by PEFT's method (LORA, IA3), where PEFT itself knows none
    compressor_width: ClassVar[int | None] = None  # inner width of the compressor; None: that of the language model
    token_types: ClassVar[bool] = True  # whether the compressor marks text and prompt with a type embedding
    head_width: ClassVar[float] = 2.0  # middle width of the classifier, in hidden sizes
    vocabulary: ClassVar[Vocabulary]  # the tokenizer's own file and special tokens
    free_vocabulary: ClassVar[bool] = True  # whether its licence lets anyone hand the tokenizer's files on
    pad_id: ClassVar[int] = 0  # of positions that nothing attends to

    # What the tests make and expect
    tiny: ClassVar[dict[str, int]]  # a config of 3 layers, 32 wide, with 4 heads
    tiny_tokenizer: ClassVar[str]  # the class in transformers
    adapters_per_layer: ClassVar[dict[str, int]]  # by the name of the stack of layers
    read_token: ClassVar[str] = "first"  # of the text, or "last"

    def __init__(self, model: PreTrainedModel, as_published: bool = False):
        super().__init__()
        replace_dropout(model)
        self.model = model
        self.adapted: dict[str, Any] = {}  # what a checkpoint tells of its adapters
        self.as_published = as_published

    @property
    def layers(self) -> nn.ModuleList:
        """The layers before any of which the prompt can be inserted."""
        raise NotImplementedError

    @property
    def hidden_size(self) -> int:
        """Width D of the hidden states, from the checkpoint's own config."""
        return self.model.config.hidden_size

    @property
    def vocabulary_size(self) -> int:
        """How many ids have an embedding."""
        return self.model.get_input_embeddings().num_embeddings

    @classmethod
    def tokenizer(cls, name_or_path: str) -> Tokenizer:
        """The tokenizer of a folder or hub name of this family; raises UserError where its ids do not fit the model."""
        tokenizer = load_tokenizer(name_or_path, cls.vocabulary, cls.pad_id)
        if config := find_file(name_or_path, "config.json"):  # Meta's layout has none
            usual = cls.model_class.config_class().vocab_size  # left out of the file where it is that
            tokenizer.require_fit(read_json(config).get("vocab_size", usual), config)
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
        """What the head reads (R, D): the state of one place a row, or of the places that the batch names."""
        raise NotImplementedError

    def put_in(self, state: State, prompt: Tensor, seen: bool = True) -> State:
        """The state with `prompt` (B, P, D) in its slot; an empty one grows. Rows that are not pictured keep theirs.

        From here on the text sees the slot, or with seen=False not yet.
        """
        place, keep = state.slot, state.keep.new_full(prompt.shape[:2], seen and not state.prompt_hidden)
        prompt = prompt.to(state.hidden.dtype)
        if state.pictured is not None:
            prompt = torch.where(state.pictured[:, None, None], prompt, state.hidden[:, place])
            keep = torch.where(state.pictured[:, None], keep, state.keep[:, place])
        grown = prompt.shape[1] - (place.stop - place.start)  # positions that the sequence gains

        def put(whole: Tensor, part: Tensor) -> Tensor:
            return torch.cat([whole[:, : place.start], part, whole[:, place.stop :]], dim=1)

        asking, read = state.asking, state.read
        if grown and asking is not None:
            rows, positions = read
            asking = put(asking, asking.new_zeros(prompt.shape[:2]))
            read = rows, positions + grown * (positions >= place.start)
        changes = {"hidden": put(state.hidden, prompt), "keep": put(state.keep, keep), "asking": asking, "read": read}
        return self.attend(replace(state, **changes, slot=slice(place.start, place.start + prompt.shape[1])))
