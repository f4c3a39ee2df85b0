"""From the config to data and module. With kinds/ and runs/ the only place below the commands that reads its keys."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from huggingface_hub.utils import enable_progress_bars
from torch import nn
from transformers.utils import logging

import clip
from dvp.backbones import LanguageBackbone, family_of
from dvp.checkpoints import TrainedOnly, read_checkpoint
from dvp.data import QuestionData
from dvp.data.arrow import table_path
from dvp.data.datamodule import Reader
from dvp.errors import UserError
from dvp.kinds import KINDS
from dvp.module import DVPModule
from dvp.runs.described import backbone_dtype, described_by
from dvp.runs.devices import precision_of, prepare_devices
from dvp.runs.trainer import cached_tokens
from dvp.search import latest_search, tables_of
from dvp.tasks import TASKS, Task
from dvp.vision import Vision

logging.disable_progress_bar()  # of reading weights, which takes no time
enable_progress_bars()  # of downloads


def build(config: dict[str, Any]) -> tuple[QuestionData, DVPModule]:
    """The data and the module of the configured task."""
    data = build_data(config)
    return data, build_module(config, data)


def build_data(config: dict[str, Any], stages: tuple[str, ...] | None = None) -> QuestionData:
    """The splits of the configured task that a training or, with test_only, a test reads; or those of `stages`."""
    task = _task(config)
    kind = KINDS[task.kind]
    return QuestionData(
        task,
        config["data_root"],
        build_reader(config),
        pick=_pick(config),
        test=(config["test_split"],) if config["test_split"] in task.test_splits else task.test,
        stages=stages or (("test",) if config["test_only"] else ("fit",)),
        batch_size=config["per_gpu_batchsize"],
        search_batch_size=max(1, config["batch_size"] // 2 // config["devices"]),
        by_length=kind.ALWAYS_BY_LENGTH or config["bucket_by_length"],
        num_workers=config["num_workers"],
        seed=config["seed"],
    )


def build_reader(config: dict[str, Any]) -> Reader:
    """What makes batches of the questions and pictures of the configured task; no test opens a table for it."""
    task = _task(config)
    kind = KINDS[task.kind]
    for key, offered in kind.OFFERED.items():
        if config[key] not in offered:
            choices = " or ".join(map(str, offered))
            raise UserError(f"{key}={config[key]} is not offered for {config['datasets']}: set it to {choices}.")
    options = {"size": config["image_size"], "turn": config["turn_pictures"]}
    transform = functools.partial(clip.TRANSFORMS[task.transform], **options)
    return kind.read(config, task, None if config["image_tokens"] == "zero" else transform)


class Unasked(NamedTuple):
    """What a model is built for where no table is opened: its questions are yet to come."""

    task: Task
    reader: Reader

    @property
    def answers(self) -> list[str]:
        """The vocabulary in label order."""
        return self.reader.answers


def build_for_questions(config: dict[str, Any]) -> tuple[DVPModule, Reader]:
    """The module of the checkpoint `load_path`, of a config with test_only, and what makes its batches."""
    data = Unasked(_task(config), build_reader(config))
    return build_module(config, data), data.reader


def build_module(config: dict[str, Any], data: QuestionData | Unasked) -> DVPModule:
    """The model in its LightningModule, weights of `load_path` loaded; of a search that is tested, its K, too.

    Raises UserError for an insert_layer that the language model does not have.
    """
    family = family_of(config["tokenizer"])
    if family != config["language_model"].lower():
        raise UserError(
            f"language_model={config['language_model']} but tokenizer={config['tokenizer']} holds a {family.upper()} "
            "model: make the two agree."
        )
    task = data.task
    kind = KINDS[task.kind]
    vision = _load_vision(config)  # before the language model: a wrong size shows at once
    language_model = {
        "dtype": backbone_dtype(config),
        "quantize": config["quantize"],
        "gradient_checkpointing": config["gradient_checkpointing"],
        "as_published": config["as_published"],
    }
    compressors = {
        "arms": None if config["search_stage"] else 1,
        "num_heads": config["num_heads"],
        "dropout": config["drop_rate"],
    }
    model = kind.build_model(config, data, vision, language_model, compressors)
    if precision_of(config) == "32-true":
        model.float()  # of 16-bit values, where a checkpoint was trained beside such: nothing casts them in passing
    if config["compile"]:
        compile_parts(model.backbone, model.vision, graphs=config["num_gpus"] > 0)
    rate = config["learning_rate"] * (config["batch_size"] / task.rate_rows if task.rate_rows else 1)
    name = kind.SUBMISSION.format(**config, checkpoint=Path(config["load_path"]).stem)
    module = DVPModule(
        model,
        config["datasets"],
        task,
        data.answers,
        pick=_pick(config),
        insert_layer=None if config["search_stage"] else _insert_layer(config, model.num_layers),
        optimizer={key: config[key] for key in OPTIMIZER_KEYS} | {"learning_rate": rate},
        answer=kind.answer(config, data),
        submit=kind.submit(config, task),
        kab=config["kab"],
        search_sample=config["search_sample"],
        search_warmup_steps=config["search_warmup_steps"],
        seed=config["seed"],
        as_published=config["as_published"],
        described=described_by(config, model) | {key: config[key] for key in kind.DESCRIBED},
        config=config,
        predictions_path=Path(config["log_dir"]) / name,
    )
    if Path(config["load_path"]).is_file():  # ours are folders
        kind.load_published(config["load_path"], module)
    elif config["load_path"]:
        module.load_weights(*read_checkpoint(config["load_path"]))
        if module.bandit and config["test_only"]:
            module.bandit.load_state_dict(TrainedOnly().load_checkpoint(config["load_path"])["bandit"])
    return module


def compile_parts(backbone: LanguageBackbone, vision: nn.Module, graphs: bool) -> None:
    """Compile the language model's layers and the image encoder, the latter into CUDA graphs if `graphs`.

    The layers get none: texts differ in length from batch to batch, pictures do not.
    """
    # A graph per mode and per shape that a length of 1 sets apart: more than the default of 8.
    torch._dynamo.config.recompile_limit = 64
    for layer in backbone.layers:  # layer by layer: they share one graph, and any K and arm can use it
        layer.compile(fullgraph=True)
    if isinstance(vision, Vision):
        vision.encoder.compile(fullgraph=True, mode="reduce-overhead" if graphs else None)


def _load_vision(config: dict[str, Any]) -> Vision:
    vision = Vision(clip.load(config["clip_model"]))
    if vision.image_size != config["image_size"]:
        raise UserError(
            f"image_size={config['image_size']} but {config['clip_model']} takes {vision.image_size} pixels."
        )
    return vision


OPTIMIZER_KEYS = ("optim_type", "learning_rate", "lr_mult", "weight_decay", "decay_power", "end_lr", "warmup_steps")


def encode_pictures(config: dict[str, Any]) -> None:
    """Fill the cache of image tokens of the configured data set, on one device."""
    prepare_devices(config["num_gpus"])
    data = build_data(config | {"image_tokens": "cache"}, ("fit", "test"))
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


def _task(config: dict[str, Any]) -> Task:
    task = TASKS[config["datasets"]]
    if task.may_lack and config["as_published"]:
        # Published: it is not there, and nothing takes its place.
        if not table_path(config["data_root"], task.files, task.may_lack).is_file():
            return replace(task, validate=tuple(split for split in task.validate if split != task.may_lack))
    return task


def _insert_layer(config: dict[str, Any], layers: int) -> int:
    layer = config["insert_layer"]
    if layer == "auto":
        tables = tables_of(config["data_root"], TASKS[config["datasets"]].files)
        layer = latest_search(Path(config["log_dir"]), config, tables)
    if not 0 <= layer < layers:
        # Published: such a layer is never reached and the image is silently left out.
        raise UserError(
            f"insert_layer={layer} is outside this model: {config['tokenizer']} has layers 0 to {layers - 1}."
        )
    return layer
