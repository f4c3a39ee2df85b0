"""Where a step's image tokens come from: a row of IMAGE_TOKENS each.

Legend: B batch, N image tokens, Dv their width.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPVisionConfig

from dvp.data.token_cache import TokenCache

PICTURES = 512  # that a cache holds
AT_ONCE = 64  # that are put into it at a time

Fetch = Callable[[int], dict[str, Tensor]]  # from a number of rows, at most B, to what these have of their pictures


def live(batch: int, vision: CLIPVisionConfig, device: torch.device) -> Fetch:
    """Pixels, which the step encodes."""
    pixels = torch.randn(batch, 3, vision.image_size, vision.image_size, device=device)
    return lambda rows: {"pixel_values": pixels[:rows]}


def in_batch(batch: int, vision: CLIPVisionConfig, device: torch.device) -> Fetch:
    """The same tokens at every step, which are there already."""
    tokens = torch.randn(batch, *tokens_shape(vision), device=device)
    return lambda rows: {"image_tokens": tokens[:rows]}


def on_host(batch: int, vision: CLIPVisionConfig, device: torch.device) -> Fetch:
    """Tokens gathered from a cache's files and sent to the device, as image_tokens_on=host does it."""
    cache = filled_cache(vision, device)
    return lambda rows: {"image_tokens": cache.gather(torch.randint(PICTURES, (rows,))).to(device, non_blocking=True)}


def on_device(batch: int, vision: CLIPVisionConfig, device: torch.device) -> Fetch:
    """Tokens picked out of all that the device holds, as image_tokens_on=device does it."""
    held = filled_cache(vision, device).gather(torch.arange(PICTURES)).to(device)
    pinned = device.type == "cuda"

    def fetch(rows: int) -> dict[str, Tensor]:
        numbers = torch.randint(PICTURES, (rows,), pin_memory=pinned)
        return {"image_tokens": held[numbers.to(device, non_blocking=True)]}

    return fetch


IMAGE_TOKENS: dict[str, Callable[[int, CLIPVisionConfig, torch.device], Fetch]] = {
    "live": live,
    "cache": in_batch,
    "host": on_host,
    "device": on_device,
}


def tokens_shape(vision: CLIPVisionConfig) -> tuple[int, int]:
    """(N, Dv) of a picture, the class token among them."""
    return (vision.image_size // vision.patch_size) ** 2 + 1, vision.hidden_size


def filled_cache(vision: CLIPVisionConfig, device: torch.device) -> TokenCache:
    """A cache of random tokens, in the dtype that a run on the device keeps; its files have no names any more."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        cache = TokenCache(Path(folder), {}, tokens_shape(vision), dtype)
        cache.folder.mkdir()
        for first in range(0, PICTURES, AT_ONCE):
            names = [str(number) for number in range(first, min(first + AT_ONCE, PICTURES))]
            cache.add(names, torch.randn(len(names), *cache.shape, device="cpu"))
        cache.flush()
    return cache
