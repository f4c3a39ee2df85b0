"""From the config to the data and the module of ScienceQA."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import clip
from dvp.checkpoints import load_trained, read_checkpoint
from dvp.errors import UserError
from dvp.scienceqa.data import ScienceQAData
from dvp.scienceqa.meta import load_llama, read_published
from dvp.scienceqa.model import ScienceQAModel, class_tokens_of
from dvp.scienceqa.module import ScienceQAModule
from dvp.scienceqa.text import answers_first
from dvp.scienceqa.tokens import Layout, Tokens, load_tokens

RATE_FOR = 256  # rows per update that learning_rate is meant for; with fewer it shrinks alike
SETTINGS = ("weight_decay", "decay_power", "end_lr", "warmup_steps")


def build_science_qa(
    config: dict[str, Any], layer_of: Callable[[int], int], dtype: torch.dtype
) -> tuple[ScienceQAData, ScienceQAModule]:
    """The splits, and the model in its LightningModule, weights of `load_path` loaded.

    layer_of: the configured K of a model with so many layers. dtype: that of the frozen language model's weights.
    """
    # CLIP's adapters are trained, so that its tokens cannot be kept.
    for key, offered in {"quantize": (None,), "compile": (False,), "image_tokens": ("live", "zero")}.items():
        if config[key] not in offered:
            choices = " or ".join(map(str, offered))
            raise UserError(f"{key}={config[key]} is not offered for ScienceQA: set it to {choices}.")
    if not answers_first(config["prompt_format"]) and config["answer_by"] == "likelihood":
        raise UserError(
            f"answer_by=likelihood asks for the letter first, but prompt_format={config['prompt_format']} teaches to "
            "explain before: use answer_by=generate, or a format that begins with the answer, such as QCM-ALE."
        )
    vision = clip.load(config["clip_model"])
    if vision.config.image_size != config["image_size"]:
        raise UserError(
            f"image_size={config['image_size']} but {config['clip_model']} takes {vision.config.image_size} pixels."
        )
    tokens = load_tokens(config["tokenizer"])
    layout = Layout(
        tuple(tokens.encode("Image: ")),
        tuple(tokens.encode("Image: N/A")),
        class_tokens_of(vision.config.num_hidden_layers),
        config["max_text_len"],
    )
    data = _data(config, tokens, layout)  # before the language model: missing tables show at once
    llama = load_llama(config["tokenizer"], dtype)
    if config["gradient_checkpointing"]:
        llama.gradient_checkpointing_enable({"use_reentrant": False})
    layers = llama.config.num_hidden_layers
    model = ScienceQAModel(
        vision,
        llama,
        layout,
        arms=layers if config["search_stage"] else 1,
        num_heads=config["num_heads"],
        dropout=config["drop_rate"],
        as_published=config["as_published"],
    )
    module = _module(config, model, tokens, None if config["search_stage"] else layer_of(layers))
    if config["load_path"].endswith(".pth"):
        load_trained(model, read_published(config["load_path"]))
    elif config["load_path"]:
        module.load_weights(*read_checkpoint(config["load_path"]))
    return data, module


def _data(config: dict[str, Any], tokens: Tokens, layout: Layout) -> ScienceQAData:
    return ScienceQAData(
        config["data_root"],
        tokens,
        layout,
        prompt_format=config["prompt_format"],
        use_caption=config["use_caption"],
        image_size=config["image_size"],
        batch_size=config["per_gpu_batchsize"],
        search_batch_size=max(1, config["batch_size"] // 2 // config["devices"]),
        likelihood=config["answer_by"] == "likelihood",
        blind=config["image_tokens"] == "zero",
        as_published=config["as_published"],
        num_workers=config["num_workers"],
        seed=config["seed"],
    )


def _module(config: dict[str, Any], model: ScienceQAModel, tokens: Tokens, insert_layer: int | None) -> ScienceQAModule:
    rate = config["learning_rate"] * config["batch_size"] / RATE_FOR
    return ScienceQAModule(
        model,
        tokens,
        prompt_format=config["prompt_format"],
        use_caption=config["use_caption"],
        answer_by=config["answer_by"],
        max_new_tokens=config["max_new_tokens"],
        insert_layer=insert_layer,
        optimizer={key: config[key] for key in SETTINGS} | {"learning_rate": rate},
        kab=config["kab"],
        search_sample=config["search_sample"],
        search_warmup_steps=config["search_warmup_steps"],
        seed=config["seed"],
        as_published=config["as_published"],
        config=config,
        predictions_path=Path(config["log_dir"]) / f"sqa_{Path(config['load_path']).stem}.json",
    )
