"""From the config to data, module and trainer: the only place below run.py that reads config keys."""

import functools
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from huggingface_hub.utils import enable_progress_bars
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from transformers.utils import logging

import clip
from dvp.backbones import BACKBONES, LanguageBackbone, family_of, load_backbone
from dvp.checkpoints import TrainedOnly, read_checkpoint
from dvp.cpu.memory import keep_freed_memory
from dvp.data import QuestionData
from dvp.data.image_tokens import ImageTokens
from dvp.errors import UserError
from dvp.model import DVP
from dvp.module import DVPModule
from dvp.published.classification import load_published
from dvp.scienceqa.build import build_science_qa
from dvp.search import latest_search, tables_of
from dvp.tasks import TASKS
from dvp.vision import FrozenVision, ZeroTokens

# What Lightning warns of is meant (two loggers share the run's folder, CLIP is frozen in eval mode) or its own affair.
warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")
logging.disable_progress_bar()  # of reading weights, which takes no time
enable_progress_bars()  # of downloads


def prepare_devices(num_gpus: int) -> None:
    """Set this process up for its devices, GPUs or the CPU; raises UserError when the machine has fewer GPUs."""
    if not num_gpus:
        keep_freed_memory()
    available = torch.cuda.device_count()
    if num_gpus > available:
        raise UserError(
            f"num_gpus={num_gpus} but this machine has {available}: ask for fewer, or num_gpus=0 for the CPU."
        )


def build(config: dict[str, Any]) -> tuple[pl.LightningDataModule, DVPModule]:
    """The data and the module of the configured task."""
    if config["datasets"] == "scienceqa":
        return build_science_qa(config, functools.partial(_insert_layer, config), _backbone_dtype(config))
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
    family = family_of(config["tokenizer"])
    if family != config["language_model"].lower():
        raise UserError(
            f"language_model={config['language_model']} but tokenizer={config['tokenizer']} holds a {family.upper()} "
            "model: make the two agree."
        )
    backbone = load_backbone(
        config["tokenizer"],
        dtype=_backbone_dtype(config),
        quantize=config["quantize"],
        gradient_checkpointing=config["gradient_checkpointing"],
        as_published=config["as_published"],
    )
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
        kab=config["kab"],
        search_sample=config["search_sample"],
        search_warmup_steps=config["search_warmup_steps"],
        seed=config["seed"],
        as_published=config["as_published"],
        config=config,
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


def _load_vision(config: dict[str, Any]) -> FrozenVision:
    vision = FrozenVision(clip.load(config["clip_model"]))
    if vision.image_size != config["image_size"]:
        raise UserError(
            f"image_size={config['image_size']} but {config['clip_model']} takes {vision.image_size} pixels."
        )
    return vision


OPTIMIZER_KEYS = ("optim_type", "learning_rate", "lr_mult", "weight_decay", "decay_power", "end_lr", "warmup_steps")


def build_trainer(config: dict[str, Any], monitor: str) -> pl.Trainer:
    """Lightning's trainer on the configured devices; the split of `monitor` picks the best checkpoint."""
    folder = Path(config["log_dir"])
    name = f"{config['exp_name']}_seed{config['seed']}"
    tensorboard = TensorBoardLogger(folder, name=name)
    csv = CSVLogger(folder, name=name, version=tensorboard.version)
    callbacks: list[pl.Callback] = [
        ModelCheckpoint(monitor=monitor, mode="max"),
        ModelCheckpoint(filename="last", enable_version_counter=False),  # save_last skips epochs that are not the best
        LearningRateMonitor(logging_interval="step"),
        TQDMProgressBar(refresh_rate=10),  # it shows the loss, and so waits for the device: not in every step
    ]
    if config["image_tokens"] == "cache" or config["image_tokens"] == "auto" and not config["fast_dev_run"]:
        callbacks.append(_image_tokens(config))
    return pl.Trainer(
        accelerator="gpu" if config["num_gpus"] else "cpu",
        devices=config["num_gpus"] or config["cpu_processes"],
        num_nodes=config["num_nodes"],
        strategy=_strategy(config),
        precision=_precision(config),
        max_epochs=config["max_epoch"] if config["max_steps"] is None else -1,
        max_steps=config["max_steps"] or -1,
        accumulate_grad_batches=config["accumulate"],
        val_check_interval=config["val_check_interval"],
        fast_dev_run=config["fast_dev_run"],
        logger=[tensorboard, csv],
        callbacks=callbacks,
        plugins=[TrainedOnly()],
        use_distributed_sampler=False,  # the data module deals the rows itself, so that none is evaluated twice
        num_sanity_val_steps=0,
        log_every_n_steps=10,
    )


def encode_pictures(config: dict[str, Any]) -> None:
    """Fill the cache of image tokens of the configured data set, on one device."""
    prepare_devices(config["num_gpus"])
    data = build_data(config | {"test_only": True, "image_tokens": "cache"})
    trainer = pl.Trainer(
        accelerator="gpu" if config["num_gpus"] else "cpu", devices=1, precision=_precision(config), logger=False
    )
    data.trainer = trainer
    splits = (*data.splits("fit"), *data.splits("test"))
    _image_tokens(config | {"image_tokens": "cache"}).start(trainer, data, _load_vision(config), splits)


def _image_tokens(config: dict[str, Any]) -> ImageTokens:
    folder, transform = Path(config["data_root"]) / "image_tokens", f"clip.preprocess {config['image_size']}"
    return ImageTokens(config["image_tokens"], folder, transform, config["image_tokens_on"] == "device")


def _strategy(config: dict[str, Any]) -> str:
    if config["strategy"] != "auto" or config["devices"] == 1:
        return config["strategy"]
    # No gradient get, in a search, the compressors of all arms but one; in ScienceQA, all that sees where no row does.
    some_unused = config["search_stage"] or config["datasets"] == "scienceqa"
    return "ddp_find_unused_parameters_true" if some_unused else "ddp"


def _pick(config: dict[str, Any]) -> tuple[str, ...]:
    # Published: GQA's test-dev and SNLI-VE's dev and test reward the search and pick the checkpoint. Right: a
    # validation split; the test splits are only reported.
    task = TASKS[config["datasets"]]
    return task.published_pick if config["as_published"] else (task.pick,)


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


def _backbone_dtype(config: dict[str, Any]) -> torch.dtype:
    wanted = config["backbone_dtype"]
    if wanted == "auto":
        frozen = config["language_model"] == "LLAMA" and config["use_adapter"]
        wanted = "bfloat16" if frozen and _precision(config) != "32-true" else "float32"
    if wanted == "bfloat16" and not config["use_adapter"]:
        raise UserError("backbone_dtype=bfloat16 is for a frozen language model: add use_adapter=True or take float32.")
    return getattr(torch, wanted)


def _precision(config: dict[str, Any]) -> str:
    precision, t5 = config["precision"], config["language_model"] == "T5"
    if precision == "auto":
        on_gpu = config["num_gpus"] > 0
        precision = 32 if not on_gpu else "bf16" if torch.cuda.is_bf16_supported() else 32 if t5 else 16
    return {16: "16-mixed", 32: "32-true", "bf16": "bf16-mixed"}[precision]
