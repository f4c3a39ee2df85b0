"""Lightning's trainer: loggers, callbacks and checkpoints of a run."""

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from dvp.checkpoints import TrainedOnly, read_progress
from dvp.data.image_tokens import ImageTokens
from dvp.kinds import preprocessing_of
from dvp.runs.answered import BestAnswers
from dvp.runs.devices import precision_of, strategy_of
from dvp.runs.finite import Finite
from dvp.runs.folder import run_folder
from dvp.runs.loggers import tracker
from dvp.runs.progress import Duration, Estimate, ValidatesAtEnd, progress_bar
from dvp.runs.resume import GoingOn, check_resume
from dvp.runs.saving import Best, Saving
from dvp.runs.sharded import Even
from dvp.runs.table import Table

# Lightning's notes on devices, seeds, tips and ends; those on the requeuing of a SLURM job stay.
for _name in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)
logging.getLogger("pytorch_lightning.trainer.connectors.signal_connector").setLevel(logging.INFO)
# What Lightning warns of is meant (two loggers share the run's folder, CLIP is frozen in eval mode) or its own affair.
warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")
warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the logging interval")
warnings.filterwarnings("ignore", ".* could not find the monitored key in the returned metrics")
warnings.filterwarnings("ignore", "This DataLoader will create .* worker processes")  # 8, as published, on a laptop
# A run that is gone on with has a folder of its own, or its very own: no other run's is ever written into.
warnings.filterwarnings("ignore", "The dirpath has changed from")
warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
# Ours are gone on with by the epoch and pass that Lightning keeps anyway.
warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")


def build_trainer(config: dict[str, Any], monitor: str) -> pl.Trainer:
    """Lightning's trainer on the configured devices; the split of `monitor` picks the best checkpoint.

    Raises UserError where `resume_from` is not to be gone on with under these settings.
    """
    goes_on = None if config["test_only"] else config["resume_from"]
    by_itself = bool(config.get("own_folder"))
    if goes_on and not by_itself:
        check_resume(config)
    folder = run_folder(config)
    number = folder.name.removeprefix("version_")
    version = int(number) if number.isdecimal() else folder.name
    place = {"save_dir": folder.parent.parent, "name": folder.parent.name, "version": version}
    # What a killed run had drawn beyond its checkpoint is drawn again.
    purge = {"purge_step": read_progress(goes_on)["global_step"]} if goes_on else {}
    table = Table()
    callbacks: list[pl.Callback] = [
        Best(monitor),
        LearningRateMonitor(logging_interval="step"),
        Finite(),
        GoingOn(None if by_itself else goes_on),
        table,
        ValidatesAtEnd(),
        Saving(config["save_every"], table, Path(goes_on) if goes_on and by_itself else None),
        Duration(),
        Estimate(),
        progress_bar(),
    ]
    if config["report"] and not (config["search_stage"] or config["test_only"] or config["fast_dev_run"]):
        callbacks.append(BestAnswers(monitor))
    if config["strategy"] == "fsdp":
        callbacks.append(Even())
    if config["image_tokens"] == "cache" or config["image_tokens"] == "auto" and not config["fast_dev_run"]:
        callbacks.append(cached_tokens(config))
    return pl.Trainer(
        default_root_dir=folder,  # where Lightning looks for what it saved when SLURM announced the job's end
        accelerator="gpu" if config["num_gpus"] else "cpu",
        devices=config["num_gpus"] or config["cpu_processes"],
        num_nodes=config["num_nodes"],
        strategy=strategy_of(config),
        precision=precision_of(config),
        max_epochs=config["max_epoch"] if config["max_steps"] is None else -1,
        max_steps=config["max_steps"] or -1,
        accumulate_grad_batches=config["accumulate"],
        val_check_interval=config["val_check_interval"],
        fast_dev_run=config["fast_dev_run"],
        logger=[TensorBoardLogger(**place, **purge), CSVLogger(**place), *tracker(config, folder)],
        callbacks=callbacks,
        plugins=[TrainedOnly()],
        inference_mode=config["strategy"] != "fsdp",  # in which no weights can be put together
        use_distributed_sampler=False,  # the data module deals the rows itself, so that none is evaluated twice
        num_sanity_val_steps=0,
        enable_model_summary=False,  # what is trained is said in words
        log_every_n_steps=10,
    )


def cached_tokens(config: dict[str, Any]) -> ImageTokens:
    """The callback that lets a run read its image tokens from a cache."""
    folder = Path(config["data_root"]) / "image_tokens"
    transform = preprocessing_of(config).key(config["turn_pictures"])
    return ImageTokens(config["image_tokens"], folder, transform, config["image_tokens_on"] == "device")
