"""From the config to data and module. With runs/ the only place below the commands that reads config keys."""

import functools
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from huggingface_hub.utils import enable_progress_bars
from torch import nn
from transformers.utils import logging

import clip
from dvp.backbones import BACKBONES, LanguageBackbone, family_of, load_backbone
from dvp.checkpoints import read_checkpoint
from dvp.data import QuestionData
from dvp.errors import UserError
from dvp.model import DVP
from dvp.module import DVPModule
from dvp.published.classification import load_published
from dvp.runs.described import backbone_dtype, described_by
from dvp.runs.devices import precision_of, prepare_devices
from dvp.runs.trainer import cached_tokens
from dvp.scienceqa.build import build_science_qa
from dvp.search import latest_search
from dvp.tasks import TASKS
from dvp.vision import FrozenVision, ZeroTokens

logging.disable_progress_bar()  # of reading weights, which takes no time
enable_progress_bars()  # of downloads


def build(config: dict[str, Any]) -> tuple[pl.LightningDataModule, DVPModule]:
    """The data and the module of the configured task."""
    if config["datasets"] == "scienceqa":
        return build_science_qa(config, functools.partial(_insert_layer, config), backbone_dtype(config))
    data = build_data(config)
    return data, build_module(config, data)


def build_data(config: dict[str, Any]) -> QuestionData:
    """The splits of the configured task."""
    task = TASKS[config["datasets"]]
    test = (config["test_split"],) if config["datasets"] == "vqa" else task.test
    return QuestionData(
        task,
        config["data_root"],
        BACKBONES[family_of(config["tokenizer"])].tokenizer(config["tokenizer"]),
        functools.partial(clip.preprocess, size=config["image_size"]) if config["image_tokens"] != "zero" else None,
        pick=_pick(config),
        test=test if config["test_only"] else (),
        batch_size=config["per_gpu_batchsize"],
        search_batch_size=max(1, config["batch_size"] // 2 // config["devices"]),
        max_text_len=config["max_text_len"],
        # Published: T5's query averages over padding, so how much of it there is changes the result.
        pad_to_max=config["as_published"] and config["language_model"] == "T5",
        bucket_by_length=config["bucket_by_length"],
        num_workers=config["num_workers"],
        seed=config["seed"],
    )


def build_module(config: dict[str, Any], data: QuestionData) -> DVPModule:
    """The model in its LightningModule, weights of `load_path` loaded.

    Raises UserError for an insert_layer that the language model does not have.
    """
    backbone = _load_language_model(config)
    layers = len(backbone.layers)
    insert_layer = None if config["search_stage"] else _insert_layer(config, layers)
    vision = _load_vision(config)
    width = vision.width
    if config["image_tokens"] == "zero":
        vision = ZeroTokens(width)
    model = DVP(
        vision,
        width,
        backbone,
        len(data.answers),
        arms=layers if config["search_stage"] else 1,
        use_adapter=config["use_adapter"],
        num_heads=config["num_heads"],
        dropout=config["drop_rate"],
    )
    if config["compile"]:
        compile_parts(backbone, vision, graphs=config["num_gpus"] > 0)
    task = TASKS[config["datasets"]]
    name = f"{config['datasets']}_submit_{Path(config['load_path']).stem}.json"
    module = DVPModule(
        model,
        config["datasets"],
        task,
        data.answers,
        pick=_pick(config),
        insert_layer=insert_layer,
        optimizer={key: config[key] for key in OPTIMIZER_KEYS},
        search_sample=config["search_sample"],
        search_warmup_steps=config["search_warmup_steps"],
        seed=config["seed"],
        as_published=config["as_published"],
        config=config,
        described=described_by(config, model),
        predictions_path=Path(config["log_dir"]) / name,
    )
    if Path(config["load_path"]).is_file():  # ours are folders
        load_published(config["load_path"], module)
    elif config["load_path"]:
        module.load_weights(*read_checkpoint(config["load_path"]))
    return module


def compile_parts(backbone: LanguageBackbone, vision: nn.Module, graphs: bool) -> None:
    """Compile the language model's layers and the image encoder, the latter into CUDA graphs if `graphs`.

    The layers get none: texts differ in length from batch to batch, pictures do not.
    """
    # A graph per mode and per shape that a length of 1 sets apart: more than the default of 8.
    torch._dynamo.config.recompile_limit = 64
    for layer in backbone.layers:  # layer by layer: they share one graph, and any K and arm can use it
        layer.compile(fullgraph=True)
    if isinstance(vision, FrozenVision):
        vision.encoder.compile(fullgraph=True, mode="reduce-overhead" if graphs else None)


def _load_language_model(config: dict[str, Any]) -> LanguageBackbone:
    family = family_of(config["tokenizer"])
    if family != config["language_model"].lower():
        raise UserError(
            f"language_model={config['language_model']} but tokenizer={config['tokenizer']} holds a {family.upper()} "
            "model: make the two agree."
        )
    backbone = load_backbone(
        config["tokenizer"],
        dtype=backbone_dtype(config),
        quantize=config["quantize"],
        gradient_checkpointing=config["gradient_checkpointing"],
        as_published=config["as_published"],
    )
    if precision_of(config) == "32-true":
        backbone.float()  # of 16-bit values, where a checkpoint was trained beside such: nothing casts them in passing
    return backbone


def _load_vision(config: dict[str, Any]) -> FrozenVision:
    vision = FrozenVision(clip.load(config["clip_model"]))
    if vision.image_size != config["image_size"]:
        raise UserError(
            f"image_size={config['image_size']} but {config['clip_model']} takes {vision.image_size} pixels."
        )
    return vision


OPTIMIZER_KEYS = ("optim_type", "learning_rate", "lr_mult", "weight_decay", "decay_power", "end_lr", "warmup_steps")


def encode_pictures(config: dict[str, Any]) -> None:
    """Fill the cache of image tokens of the configured data set, on one device."""
    prepare_devices(config["num_gpus"])
    data = build_data(config | {"test_only": True, "image_tokens": "cache"})
    trainer = pl.Trainer(
        accelerator="gpu" if config["num_gpus"] else "cpu", devices=1, precision=precision_of(config), logger=False
    )
    data.trainer = trainer
    splits = (*data.splits("fit"), *data.splits("test"))
    cached_tokens(config | {"image_tokens": "cache"}).start(trainer, data, _load_vision(config), splits)


def _pick(config: dict[str, Any]) -> tuple[str, ...]:
    # Published: GQA's test-dev and SNLI-VE's dev and test reward the search and pick the checkpoint. Right: a
    # validation split; the test splits are only reported.
    task = TASKS[config["datasets"]]
    return task.published_pick if config["as_published"] else (task.pick,)


def _insert_layer(config: dict[str, Any], layers: int) -> int:
    layer = config["insert_layer"]
    if layer == "auto":
        layer = latest_search(Path(config["log_dir"]), config)
    if not 0 <= layer < layers:
        # Published: such a layer is never reached and the image is silently left out.
        raise UserError(
            f"insert_layer={layer} is outside this model: {config['tokenizer']} has layers 0 to {layers - 1}."
        )
    return layer
