"""From the config to data and module: what becomes of the settings, but for those that kinds/ and runs/ read."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from huggingface_hub.utils import enable_progress_bars
from torch import nn
from transformers.utils import logging

from dvp.backbones import LanguageBackbone, family_of
from dvp.checkpoints import (
    TrainedOnly,
    at_layer,
    read_checkpoint,
    read_description,
    taken_parts,
    trained_state,
    without_adapters,
)
from dvp.config.experiments import search_of
from dvp.data import QuestionData
from dvp.data.arrow import table_path
from dvp.data.datamodule import Reader
from dvp.data.leaks import refuse_shared_questions, shared_pictures
from dvp.encoders import require_size
from dvp.encoders.loading import load_encoder, row_of
from dvp.encoders.transform import prepare
from dvp.errors import UserError
from dvp.families import layers_in
from dvp.files import is_published
from dvp.kinds import KINDS, preprocessing_of
from dvp.model import DVP
from dvp.module import DVPModule
from dvp.runs.described import backbone_dtype, described_by
from dvp.runs.devices import precision_of, prepare_devices
from dvp.runs.folder import is_first_process
from dvp.runs.trainer import cached_tokens
from dvp.search import latest_search, search_beside, tables_of
from dvp.tasks import TASKS, Task
from dvp.vision import Vision

logging.disable_progress_bar()  # of reading weights, which takes no time
logging.set_verbosity_error()  # its report lists weights that are not used; that none is missing is checked here
enable_progress_bars()  # of downloads


def build(config: dict[str, Any]) -> tuple[QuestionData, DVPModule]:
    """The data and the module of the configured task."""
    data = build_data(config)
    return data, build_module(config, data)


def build_data(config: dict[str, Any], stages: tuple[str, ...] | None = None, tell: bool = True) -> QuestionData:
    """The splits of the configured task that a training or, with test_only, a test reads; or those of `stages`.

    Pictures that training and evaluation share are told, if `tell`; raises UserError for shared questions, unless as
    published.
    """
    task = _task(config)
    kind = KINDS[task.kind]
    data = QuestionData(
        task,
        config["data_root"],
        build_reader(config),
        pick=_pick(config),
        test=task.tested(config["test_split"]),
        stages=stages or (("test",) if config["test_only"] else ("fit",)),
        batch_size=config["per_gpu_batchsize"],
        search_batch_size=max(1, config["batch_size"] // 2 // config["devices"]),
        passes=config["accumulate"],
        by_length=kind.ALWAYS_BY_LENGTH or config["bucket_by_length"],
        num_workers=config["num_workers"],
        seed=config["seed"],
    )
    if not config["as_published"]:
        refuse_shared_questions(task, data.tables)
    if tell and is_first_process() and (shared := shared_pictures(config["data_root"], task, data.tables)):
        print(shared)
    return data


def build_reader(config: dict[str, Any]) -> Reader:
    """What makes batches of the questions and pictures of the configured task; no test opens a table for it."""
    task = _task(config)
    kind = KINDS[task.kind]
    for key, offered in kind.OFFERED.items():
        if config[key] not in offered:
            choices = " or ".join(map(str, offered))
            raise UserError(f"{key}={config[key]} is not offered for {config['datasets']}: set it to {choices}.")
    transform = functools.partial(prepare, how=preprocessing_of(config), turn=config["turn_pictures"])
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
    config = searched(config)
    family = family_of(config["tokenizer"])
    if family != config["language_model"].lower():
        raise UserError(
            f"language_model={config['language_model']} but tokenizer={config['tokenizer']} holds a {family.upper()} "
            "model: make the two agree."
        )
    task = data.task
    kind = KINDS[task.kind]
    vision = load_vision(config)  # before the language model: a wrong size shows at once
    model = kind.build_model(config, data, vision, *_options(config))
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
        insert_layer=None if config["search_stage"] else insert_layer(config, model.num_layers),
        optimizer={key: config[key] for key in OPTIMIZER_KEYS} | {"learning_rate": rate},
        answer=kind.answer(config, data),
        submit=kind.submit(config, task),
        kab=config["kab"],
        search_sample=config["search_sample"],
        search_warmup_steps=config["search_warmup_steps"],
        seed=config["seed"],
        as_published=config["as_published"],
        described=described_by(config, model)
        | {"pictures": preprocessing_of(config).key()}
        | {key: config[key] for key in kind.DESCRIBED},
        config=config,
        predictions_path=Path(config["log_dir"]) / name,
    )
    if is_published(config["load_path"]):
        kind.load_published(config["load_path"], module)
    elif config["load_path"]:
        _load(module, config)
        if module.bandit and config["test_only"]:
            module.bandit.load_state_dict(TrainedOnly().load_checkpoint(config["load_path"])["bandit"])
    return module


def build_empty(config: dict[str, Any]) -> DVP:
    """The model that a run would train, its language model without weights: on torch's meta device, shapes alone."""
    data, (language_model, compressors) = Unasked(_task(config), build_reader(config)), _options(config)
    vision = load_vision(config)
    with torch.device("meta"):
        return KINDS[data.task.kind].build_model(config, data, vision, language_model | {"empty": True}, compressors)


def _options(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the language model and of the compressors."""
    language_model = {
        "dtype": backbone_dtype(config),
        "quantize": config["quantize"],
        "gradient_checkpointing": config["gradient_checkpointing"],
        "as_published": config["as_published"],
    }
    compressors = {
        "arms": None if config["search_stage"] else len(layers_in(config["insert_layer"])),
        "prompt_tokens": config["prompt_tokens"],
        "num_heads": config["num_heads"],
        "dropout": config["drop_rate"],
    }
    return language_model, compressors


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


def load_vision(config: dict[str, Any]) -> Vision:
    """The configured image encoder, frozen; raises UserError where it takes pictures of another size."""
    encoder = load_encoder(config["clip_model"])
    made = encoder.config
    require_size(config["clip_model"], row_of(made), config["image_size"], made.image_size, made.patch_size)
    return Vision(encoder)


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
    cached_tokens(config | {"image_tokens": "cache"}).start(trainer, data, load_vision(config), splits)


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


def searched(config: dict[str, Any]) -> dict[str, Any]:
    """The config with K, and the checkpoint to start from, of the search that it asks for: that of `load_path` or one
    under `log_dir`.
    """
    starts = config["start_from"] == "search" and not config["test_only"]
    layer = config["insert_layer"]
    if config["search_stage"] or not (starts or layer == "auto"):
        return config
    if not starts and _is_of_search(config["load_path"]):
        search = search_beside(Path(config["load_path"]))
        print(f"{config['load_path']} is of a search: K = {search.insert_layer}, {search.record['verdict']}")
    else:
        tables = tables_of(config["data_root"], TASKS[config["datasets"]].files)
        search = latest_search(Path(config["log_dir"]), config, tables, search_of(config), starts)
    found = {"load_path": str(search.checkpoint)} if starts else {}
    if layer not in ("auto", search.insert_layer):
        print(f"insert_layer={layer} is taken, not the search's K = {search.insert_layer}.")
    return config | found | {"insert_layer": search.insert_layer if layer == "auto" else layer}


def _is_of_search(path: str) -> bool:
    return Path(path or "nothing").is_dir() and bool(read_description(path).get("search_stage"))


def insert_layer(config: dict[str, Any], layers: int) -> int | list[int]:
    """K, or several; raises UserError where one is outside of so many layers."""
    layer = config["insert_layer"]
    if not all(0 <= one < layers for one in layers_in(layer)):
        # Published: such a layer is never reached and the image is silently left out.
        raise UserError(
            f"insert_layer={layer} is outside this model: {config['tokenizer']} has layers 0 to {layers - 1}; "
            "give one of these."
        )
    return layer


def _load(module: DVPModule, config: dict[str, Any]) -> None:
    """Load the weights of a checkpoint folder; of a search's those that a run at one layer can use, and say which.

    A whole language model goes on from a search with adapters, too: with its compressor, norms and head.
    """
    weights, description = read_checkpoint(config["load_path"])
    layer = module.insert_layer
    if layer is not None and description.get("search_stage"):
        what = taken_parts(weights, layer)
        weights, description = at_layer(weights, description, layer)
        if description.get("use_adapter") and not config["use_adapter"] and not config["test_only"]:
            here = module.describe()
            weights, description = without_adapters(weights, description, trained_state(module), here, module.model)
            what = what.replace(" adapters,", "") + "; its adapters are left, since the whole language model is trained"
        module.load_weights(weights, description)
        print(f"From the search {config['load_path']}, at K = {layer}: {what}.")
        return
    module.load_weights(weights, description)
