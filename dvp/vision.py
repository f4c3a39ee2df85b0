"""The frozen image encoder: CLIP's tokens, always in eval mode, never with a gradient."""

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel


class ZeroTokens(nn.Module):
    """One zero token per image instead of the encoder's: the blind baseline. Many zeros would give the same prompt."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.zeros(len(batch["input_ids"]), 1, self.width, device=batch["input_ids"].device)


class FrozenVision(nn.Module):
    """Image tokens (B, N, Dv): CLIP's last hidden state, class token first, no post-norm, no projection.

    `encoder` is what `clip.load` returns. A batch that brings its `image_tokens` along is not encoded again.
    """

    def __init__(self, encoder: CLIPVisionModel):
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        super().train(False)

    @property
    def width(self) -> int:
        """Width Dv of the image tokens."""
        return self.encoder.config.hidden_size

    @property
    def image_size(self) -> int:
        """Side in pixels of the square pictures that the encoder's position table is made for."""
        return self.encoder.config.image_size

    def train(self, mode: bool = True) -> "FrozenVision":
        """Stays in eval mode whatever `mode` says: the tokens of an image are always the same."""
        return self

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        if "image_tokens" in batch:
            return batch["image_tokens"]
        return self.encoder(pixel_values=batch["pixel_values"]).last_hidden_state
