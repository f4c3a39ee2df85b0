"""The image encoder's tokens, frozen in eval mode, or with trained adapters in it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dvp.encoders.loading import prefix_tokens


class Seen(NamedTuple):
    """What the encoder makes of a batch of pictures."""

    tokens: Tensor  # (B, N, Dv) of its last block; zeros in rows without a picture
    class_tokens: Tensor | None = None  # (B, C, Dv) of the blocks that were asked for


class ZeroTokens(nn.Module):
    """One zero token per image instead of the encoder's: the blind baseline. Many zeros would give the same prompt."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, batch: dict[str, Tensor]) -> Seen:
        return Seen(torch.zeros(len(batch["input_ids"]), 1, self.width, device=batch["input_ids"].device))


class Vision(nn.Module):
    """Image tokens: the encoder's last hidden state, all of it; of CLIP without post-norm and projection.

    `encoder` is what `load_encoder` returns, frozen. A batch that brings its `image_tokens` along is not encoded again.
    trained: what is put into it is trained, so that it follows the model's mode and has gradients. class_tokens: hidden
    states, 0 that of the first block's input, whose class tokens are given beside.
    """

    def __init__(self, encoder: PreTrainedModel, *, trained: bool = False, class_tokens: tuple[int, ...] = ()):
        super().__init__()
        self.encoder = encoder
        self.trained, self.class_tokens = trained, class_tokens
        if not trained:
            self.requires_grad_(False)
            super().train(False)

    @property
    def width(self) -> int:
        """Width Dv of the image tokens."""
        return self.encoder.config.hidden_size

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.encoder.config.patch_size

    @property
    def prefix_tokens(self) -> int:
        """How many tokens stand before those of the patches."""
        return prefix_tokens(self.encoder.config)

    def train(self, mode: bool = True) -> "Vision":
        """A frozen encoder stays in eval mode whatever `mode` says: the tokens of an image are always the same."""
        return super().train(mode) if self.trained else self

    def forward(self, batch: dict[str, Tensor]) -> Seen | None:
        """The tokens of the batch's pictures, of all rows or of those with `has_image`; None where it has none."""
        if "image_tokens" in batch:
            return Seen(batch["image_tokens"])
        if "pixel_values" not in batch:
            return None
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            found = self.encoder(pixel_values=batch["pixel_values"], output_hidden_states=bool(self.class_tokens))
        if not self.class_tokens:
            return Seen(found.last_hidden_state)
        class_tokens = torch.stack([found.hidden_states[block][:, 0] for block in self.class_tokens], dim=1)
        return Seen(*(_of_rows(part, batch["has_image"]) for part in (found.last_hidden_state, class_tokens)))


def exchanged(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with each of its pictures, or the tokens of these, in the place of another; a single one stays."""
    kept = {key: batch[key] for key in ("image_tokens", "pixel_values") if key in batch}
    return batch | {key: pictures.roll(1, 0) for key, pictures in kept.items()}


def _of_rows(part: Tensor, has_image: Tensor) -> Tensor:
    """What belongs to the pictures, for all rows; as published, rows without one have a picture of zeros, too."""
    if len(part) == len(has_image):
        return part
    return part.new_zeros(len(has_image), *part.shape[1:]).masked_scatter(has_image[:, None, None], part)
