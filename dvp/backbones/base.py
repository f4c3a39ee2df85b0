"""What every language model must offer so that a visual prompt can be put in front of any of its layers.

Legend: B batch, T text tokens (with what is in front of them), S encoder tokens (T5), D hidden, P prompt tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from dvp.backbones.tokenizer import Tokenizer
from dvp.backbones.tokenizer_files import find_file, load_tokenizer
from dvp.cpu.dropout import replace_dropout
from dvp.families import Family
from dvp.files import read_json

FULL, SLIDING = "full_attention", "sliding_attention"  # what transformers calls layers without and with a window


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
    near: Tensor | None = None  # the same for layers with a window
    positions: Any = None  # T5: relative position bias; else rotary cosines and sines by the type of layer
    memory: Tensor | None = None  # T5: encoder output (B, S, D)
    memory_mask: Tensor | None = None  # T5: attention mask over the memory
    fixed_query: Tensor | None = None  # T5: (B, 1, D), the same at every layer
    asking: Tensor | None = None  # decoders: (B, T) bool, the positions whose mean asks the compressor
    read: tuple[Tensor, Tensor] | None = None  # decoders: rows and positions (R,) that are read out
    places: Tensor | None = None  # decoders, while generating: positions (B, T) of hidden, and
    columns: Tensor | None = None  # those (B, C) of all that it looks at: what the cache holds, and hidden
    cache: Any = None  # decoders, while generating: keys and values of the earlier tokens

    def rows(self, chosen: slice) -> "State":
        """The state of some of the rows."""
        return replace(self, **{name: part[chosen] for name, part in self._parts()})

    def joined(self, other: "State") -> "State":
        """One state of the rows of both, which must be equally long, so that a layer runs once for all of them."""
        return replace(self, **{name: torch.cat([part, getattr(other, name)]) for name, part in self._parts()})

    def _parts(self) -> list[tuple[str, Tensor]]:
        names = ("hidden", "keep", "pictured", "mask", "near", "memory", "memory_mask", "fixed_query", "asking")
        return [(name, getattr(self, name)) for name in names if getattr(self, name) is not None]


def hidden_of(returned: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The hidden states that a layer of transformers returns, in some families and versions first of a tuple."""
    return returned[0] if isinstance(returned, tuple) else returned


class _Named:
    """A class of transformers by the name that a row gives: looked up when it is asked for, since each takes time."""

    def __init__(self, column: str):
        self.column = column

    def __get__(self, backbone: Any, row: type[Family]) -> type[PreTrainedModel] | None:
        name = getattr(row, self.column)
        return name and getattr(transformers, name)


class LanguageBackbone(nn.Module, Family):
    """A Hugging Face language model whose layers are run one at a time: a kind of model, with the row of a family.

    Knows nothing of images, tasks or the search. Hugging Face layer signatures stay in the subclasses.
    """

    model_class = _Named("architecture")
    headed_class = _Named("headed")
    adapter: ClassVar[dict]  # reduction, activation and initialisation of the adapters
    compressor_width: ClassVar[int | None] = None  # inner width of the compressor; None: that of the language model
    token_types: ClassVar[bool] = True  # whether the compressor marks text and prompt with a type embedding
    head_width: ClassVar[float] = 2.0  # middle width of the classifier, in hidden sizes
    read_token: ClassVar[str] = "first"  # of the text, or "last"

    def __init__(self, model: PreTrainedModel, as_published: bool = False):
        super().__init__()
        replace_dropout(model)
        self.model = model
        self.adapted: dict[str, Any] = {}  # what a checkpoint tells of its adapters
        self.as_published = as_published

    def part(self, name: str) -> Any:
        """A part of the model by what its kind calls it."""
        return self.model.get_submodule(self.parts[name])

    @property
    def layers(self) -> nn.ModuleList:
        """The layers before any of which the prompt can be inserted."""
        return self.part("layers")

    @property
    def layer_types(self) -> Sequence[str]:
        """Of every layer whether it looks at all of the text (FULL) or at what is in its window (SLIDING)."""
        config = self.model.config
        all_alike = SLIDING if getattr(config, "sliding_window", None) else FULL
        return getattr(config, "layer_types", None) or [all_alike] * len(self.layers)

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

    def rotary_positions(self, hidden: Tensor, places: Tensor) -> dict[str, Any] | None:
        """Cosines and sines of places (B or 1, T) by the type of layer; None where positions are added to the words."""
        if self.rotary is None:
            return None
        types = dict.fromkeys(self.layer_types)
        if self.rotary == "shared":
            return dict.fromkeys(types, self.model.rotary_emb(hidden, places))
        return {kind: self.model.rotary_emb(hidden, places, kind) for kind in types}

    def prompted(self, state: State, places: Tensor) -> Tensor:
        """Which of the places (B or 1, T) hold a prompt, which is in every window. (B or 1, T)"""
        slot = (places >= state.slot.start) & (places < state.slot.stop)
        return slot if state.pictured is None else slot & state.pictured[:, None]

    def layer_options(self, index: int, state: State) -> dict[str, Any]:
        """The mask of layer `index`, and its positions, as transformers' layers without a memory take them."""
        kind = self.layer_types[index]
        positions = {"position_embeddings": state.positions[kind]} if state.positions else {}
        return {"attention_mask": state.near if kind == SLIDING else state.mask} | positions

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
