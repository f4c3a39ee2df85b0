"""What stands before the text in ScienceQA, and the parts of its model: LLaMA and image encoder with routed adapters.

Legend: B batch, T positions, D hidden, N image tokens, Dv their width, C class tokens.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dvp.adapters import adapt
from dvp.backbones import LanguageBackbone, State
from dvp.encoders.loading import row_of
from dvp.scienceqa.adapters import RoutedAdapter
from dvp.scienceqa.tokens import Layout
from dvp.vision import Seen, Vision

CLASS_TOKEN_EVERY = 4  # blocks of the encoder; of one with fewer, after the last


def class_token_blocks(blocks: int) -> tuple[int, ...]:
    """After which blocks of an encoder of so many a class token is taken."""
    return tuple(range(CLASS_TOKEN_EVERY, blocks + 1, CLASS_TOKEN_EVERY)) or (blocks,)


class Prefix(nn.Module):
    """Puts into a text's first state the modality token, which routes the adapters, class tokens, and the empty slot.

    as_published: the text never sees the slot, at no layer.
    """

    def __init__(self, layout: Layout, image_size: int, hidden_size: int, width: int = 128, as_published: bool = False):
        super().__init__()
        self.layout, self.as_published = layout, as_published
        self.projector = nn.Sequential(nn.Linear(image_size, width), nn.SiLU(), nn.Linear(width, hidden_size))
        self.modality = nn.Embedding(2, hidden_size)  # row 0: no image, row 1: image
        self.slot = nn.Parameter(torch.zeros(1, hidden_size))

    def forward(self, state: State, batch: dict[str, Tensor], image: Seen | None) -> State:
        """The state with all that in place; the prompt goes into its slot, in the rows that have an image."""
        has_image, hidden = batch["has_image"], state.hidden.clone()  # (B, T, D)
        hidden[:, 0] = self.modality(has_image.long()).to(hidden.dtype)
        slot = self.layout.slot
        if image is not None:
            class_tokens = self.projector(image.class_tokens)  # (B, C, D)
            seen = torch.cat([class_tokens, self.slot.expand(len(hidden), 1, -1)], dim=1).to(hidden.dtype)
            place = slice(self.layout.image.start, slot + 1)
            hidden[:, place] = torch.where(has_image[:, None, None], seen, hidden[:, place])
        # Published: the mask is edited in place, so that the text never sees the prompt, at any layer.
        changes = {"pictured": has_image, "prompt_hidden": self.as_published}
        return replace(state, hidden=hidden, slot=slice(slot, slot + 1), **changes)


def build_parts(
    encoder: PreTrainedModel,
    backbone: LanguageBackbone,
    head: nn.Module,
    layout: Layout,
    *,
    projector_width: int = 128,
    adapter: dict[str, Any] | None = None,
    as_published: bool = False,
) -> dict[str, Any]:
    """The parts of a DVP model: all frozen but routed adapters in encoder and language model, and the prefix.

    adapter: further arguments of RoutedAdapter.
    """
    options, size, width = adapter or {}, backbone.hidden_size, encoder.config.hidden_size
    adapt(backbone, backbone.first_norms, lambda: RoutedAdapter(size, **options))
    norm = row_of(encoder.config).attention_norm
    adapt(encoder, (norm,), lambda: RoutedAdapter(width, by_first_row=as_published, **options))
    vision = Vision(encoder, trained=True, class_tokens=class_token_blocks(encoder.config.num_hidden_layers))
    prefix = Prefix(layout, width, size, projector_width, as_published)
    return {
        "vision": vision,
        "vision_width": width,
        "backbone": backbone,
        "head": head.requires_grad_(False),
        "prefix": prefix,
    }
