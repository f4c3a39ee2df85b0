"""The embedded models made fit for other data: an image encoder for more pixels, a language model with more words."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import BertModel, CLIPVisionConfig, CLIPVisionModel
from transformers.utils import logging

logging.disable_progress_bar()  # reading and writing these takes no time


def write_larger_clip(source: Path, to: Path, pixels: int) -> None:
    """Nothing; `to` gets the image encoder for pictures of so many pixels, its table of positions stretched to them."""
    small = CLIPVisionModel.from_pretrained(source, dtype=torch.float32)
    larger = CLIPVisionModel(CLIPVisionConfig(**small.config.to_dict() | {"image_size": pixels}))
    old, new = (model.config.image_size // model.config.patch_size for model in (small, larger))
    table = small.embeddings.position_embedding.weight  # (1 + old * old, D), the class token's row first
    grid = table[1:].T.reshape(1, -1, old, old)  # (1, D, old, old)
    stretched = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False).flatten(2)[0].T
    weights = small.state_dict() | {"embeddings.position_embedding.weight": torch.cat([table[:1], stretched])}
    larger.load_state_dict(weights)
    larger.save_pretrained(to)


def write_bert_with_words(source: Path, to: Path, words: Iterable[str]) -> None:
    """Nothing; `to` gets the language model with these words beside its own, each begun as the mean of all words."""
    vocabulary = (source / "vocab.txt").read_text(encoding="utf-8").split()
    new = [word for word in dict.fromkeys(words) if word not in vocabulary]
    model = BertModel.from_pretrained(source, add_pooling_layer=False)
    known = model.get_input_embeddings().weight
    model.resize_token_embeddings(len(vocabulary) + len(new), mean_resizing=False)
    table = model.get_input_embeddings().weight
    noise = torch.randn(len(new), table.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        table[len(vocabulary) :] = known.mean(0) + noise * known.std(0)
    model.save_pretrained(to)
    (to / "vocab.txt").write_text("\n".join([*vocabulary, *new]) + "\n", encoding="utf-8")
    shutil.copy(source / "tokenizer_config.json", to)
