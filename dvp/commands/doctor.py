"""What a run would meet, before it is started: everything that could stop it is listed, with its remedy."""

import importlib
from collections.abc import Iterator
from typing import Any

from sacred.run import Run

from dvp.commands.early import (
    check_checkpoint,
    check_data_root,
    check_devices,
    check_image_encoder,
    check_language_model,
    check_launcher,
    check_packages,
    check_search_saw,
)
from dvp.commands.idle import idle
from dvp.config import contradictions, ex, fill, passes_of
from dvp.doctor.findings import FAULT, NOTE, OK, Finding, Look, findings
from dvp.doctor.packages import look_at_packages
from dvp.errors import UserError
from dvp.files import is_published
from dvp.runs.told import refuse_other_settings, settings_told

DOCTOR = "dvp.doctor"  # its modules that know torch are imported where they look, so that one that fails is a fault


@ex.command(unobserved=True)
def doctor(_config, _run):
    """Say, before a GPU is touched, what a run would meet; ends with exit code 1 where it could not start.

    Settings, packages, devices, tables, models, checkpoint, room on disk, memory: no fault hides another.
    """
    config, faults = fill(_config), 0
    print(f"What a run of {config['exp_name']} would meet here:")
    for found in _examine(config | {"accumulate": _passes(config)}, _run):
        faults += found.state == FAULT
        print(f"  {found.state:6}{found.what:16}{found.told}", flush=True)
    if faults:
        raise UserError(f"The run cannot start: mend the {faults} fault{'s' if faults > 1 else ''} above.")
    print("The run can start.")


def _examine(config: dict[str, Any], run: Run) -> Iterator[Finding]:
    typed = run.meta_info.get("config_updates", {})
    for key, why in idle(typed, config):
        yield Finding(NOTE, "settings", f"{key}={typed[key]} has no effect: {why}")
    yield from findings(LOOKS, config)


def _passes(config: dict[str, Any]) -> int:
    try:
        return passes_of(config)
    except UserError:
        return 1  # it is told among the settings


def _look_at_settings(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What settings must be to each other, and what the checkpoint to test says of them."""
    yield from ((FAULT, sentence) for sentence in contradictions(config))
    if config["test_only"]:
        yield OK, f"a test, {config['per_gpu_batchsize']} rows at a time on {config['devices']} device(s)"
        return
    passes = passes_of(config)
    rows = f"{config['per_gpu_batchsize']} rows x {config['devices']} device(s) x {passes} pass(es)"
    yield OK, f"{config['batch_size']} rows per update: {rows}"


def _look_at_devices(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    check_devices(config["num_gpus"], config["strategy"])
    check_packages(config)
    import torch

    there = torch.cuda.device_count()  # the driver is asked, none is touched
    if config["num_gpus"] > there:
        raise UserError(f"num_gpus={config['num_gpus']} but torch finds {there}: ask for fewer, or num_gpus=0.")
    each = f"{config['num_gpus']} GPU(s)" if config["num_gpus"] else f"{config['cpu_processes']} process(es) on the CPU"
    yield OK, f"{config['num_nodes']} x {each}; torch finds {there} GPUs"


def _look_at_launcher(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    try:
        check_launcher(config)
    except UserError as error:
        yield NOTE, str(error)  # the doctor need not be started as the run is


def _early(check: Any, *keys: str) -> Look:
    def look(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
        check(*(config[key] for key in keys) if keys else (config,))
        yield from ()

    return look


def _late(module: str, name: str, *before: Look) -> Look:
    """A look of a module that imports torch, after what can be seen without."""

    def look(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for one in before:
            yield from one(config)
        yield from getattr(importlib.import_module(f"{DOCTOR}.{module}"), name)(config)

    return look


def _look_at_checkpoints(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("load_path", "resume_from"):
        check_checkpoint(key, config[key])
    check_search_saw(config)
    if config["test_only"] and config["load_path"] and not is_published(config["load_path"]):
        told = settings_told(config["load_path"], on_gpu=config["num_gpus"] > 0)
        refuse_other_settings(config["load_path"], told, config)
    yield from ()


_look_at_names = _early(check_language_model)  # by which what needs the language model is not asked for it again
LOOKS: dict[str, Look] = {
    "packages": look_at_packages,
    "settings": _look_at_settings,
    "devices": _look_at_devices,
    "launcher": _look_at_launcher,
    "tables": _late("tables", "look_at_tables", _early(check_data_root)),
    "language model": _late("models", "look_at_language_model", _look_at_names),
    "image encoder": _late("models", "look_at_image_encoder", _early(check_image_encoder, "clip_model", "image_size")),
    "checkpoint": _late("models", "look_at_checkpoint", _look_at_checkpoints),
    "layers": _late("models", "look_at_layers", _look_at_names),
    "disk": _late("room", "look_at_disk", _look_at_names),
    "memory": _late("room", "look_at_memory", _look_at_names),
}
