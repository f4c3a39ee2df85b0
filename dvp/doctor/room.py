"""Room: of a device's memory and of the disk, what a run would take, against what is there.

Legend: B rows per device and pass, T tokens, D hidden, L layers, N image tokens.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dvp.build import build_empty, load_vision
from dvp.data.arrow import open_table, table_path
from dvp.data.image_tokens import STORED, encoder_hash
from dvp.data.token_cache import TokenCache
from dvp.doctor.findings import FAULT, NOTE, OK
from dvp.doctor.models import count, known
from dvp.encoders.loading import count_tokens
from dvp.errors import UserError
from dvp.kinds import preprocessing_of
from dvp.runs.devices import precision_of
from dvp.runs.saving import KEPT
from dvp.tasks import TASKS

MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}  # numbers that an optimiser keeps per weight
# What bitsandbytes keeps of a linear layer's weights: a byte each and a scale per row, or half and a scale per block.
BYTES = {
    "8bit": lambda weight: weight.numel() + 4 * len(weight),
    "4bit": lambda weight: weight.numel() * (0.5 + 4 / 64),
}
WHOLE = 4  # bytes of a trained weight, its gradient and each of its moments, whatever the precision
PROGRAM = 1e9  # bytes of a process before it has a model: Python, torch and the other packages, as measured
LAYER = 17  # numbers that a transformer's layer keeps per token and unit of width for its backward pass, roughly


def look_at_memory(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """An estimate of what a device must hold: weights, gradients, moments for sure, activations roughly.

    Of a CPU's memory the program itself takes a part, too.
    """
    model = build_empty(known(config))
    program = {} if config["num_gpus"] else {"Python and its packages": PROGRAM}
    sure = program | standing(model, config)
    rough = activations(model, config)
    parts = ", ".join(f"{name} {_size(number)}" for name, number in (*sure.items(), ("activations", rough)) if number)
    told, total = f"{parts}; estimated {_size(sum(sure.values()) + rough)}", memory_of_device(config)
    if total is None:
        yield OK, f"{told}; what a device has is not known here"
    elif sum(sure.values()) > total:
        yield (
            FAULT,
            (f"{told}, but a device has {_size(total)}: take use_adapter=True, quantize=8bit, or a larger device."),
        )
    elif sum(sure.values()) + rough > total:
        yield (
            NOTE,
            f"{told}, but a device has {_size(total)}: a smaller per_gpu_batchsize or gradient_checkpointing=True",
        )
    else:
        yield OK, f"{told}, of {_size(total)}"


def look_at_disk(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Room for the checkpoints that are there at a time, and for image tokens where they are kept."""
    place, free = _place(config["log_dir"], "log_dir")
    if not config["test_only"]:
        trained, _ = count(build_empty(known(config)))
        at_once = KEPT + 2  # the one that is being written, and the best
        need = at_once * trained * WHOLE * (1 + MOMENTS[config["optim_type"]] + (config["accumulate"] > 1))
        told = f"{at_once} checkpoints take up to {_size(need)}, {place} has {_size(free)} free"
        yield (OK, told) if need <= free else (FAULT, f"{told}: make room, or choose another log_dir.")
    if config["image_tokens"] not in ("auto", "cache") or config["test_only"]:
        return
    place, free = _place(config["data_root"], "data_root")
    need = cache_bytes(config)
    told = f"image tokens that are not kept yet take up to {_size(need)}, {place} has {_size(free)} free"
    if need <= free:
        yield OK, told
    elif config["image_tokens"] == "auto":
        yield NOTE, f"{told}: they will be encoded live"
    else:
        yield FAULT, f"{told}: make room, or use image_tokens=live."


def standing(model: nn.Module, config: dict[str, Any]) -> dict[str, float]:
    """Bytes on a device that stay, by what they are."""
    trained, frozen = count(model)[0], sum(one.nbytes for one in model.parameters() if not one.requires_grad)
    for layer in model.backbone.modules() if config["quantize"] else ():
        if isinstance(layer, nn.Linear) and not layer.weight.requires_grad:
            frozen += BYTES[config["quantize"]](layer.weight) - layer.weight.nbytes
    if config["test_only"]:
        return {"frozen weights": frozen, "trained weights": trained * WHOLE}
    moments = trained * WHOLE * MOMENTS[config["optim_type"]]
    return {"frozen weights": frozen, "trained weights": trained * WHOLE, "gradients": trained * WHOLE,
            "moments": moments}  # fmt: skip


def activations(model: nn.Module, config: dict[str, Any]) -> float:
    """Bytes, roughly, that a pass keeps for its way back; of a test those of one layer."""
    size = 4 if precision_of(known(config)) == "32-true" else 2
    rows = config["per_gpu_batchsize"]
    stacks = 2 if hasattr(model.backbone.model, "encoder") and hasattr(model.backbone.model, "decoder") else 1
    unit = rows * (config["max_text_len"] + 1) * model.backbone.hidden_size * size  # (B, T, D)
    layers = model.num_layers * stacks
    text = unit * LAYER
    if not config["test_only"]:
        text = unit * (layers + LAYER if config["gradient_checkpointing"] else layers * LAYER)
    if config["image_tokens"] == "zero":
        return text
    encoder = model.vision.encoder.config
    image = rows * count_tokens(encoder, config["image_size"]) * encoder.hidden_size * size * LAYER  # (B, N, Dv)
    return text + image * (encoder.num_hidden_layers if model.vision.trained and not config["test_only"] else 1)


def cache_bytes(config: dict[str, Any]) -> int:
    """Bytes that the image tokens of a run's tables take at most, without those that are kept already."""
    task = TASKS[config["datasets"]]
    vision = load_vision(config)
    about = {
        "encoder": encoder_hash(vision),
        "transform": preprocessing_of(config).key(config["turn_pictures"]),
    }
    shape = (count_tokens(vision.encoder.config, config["image_size"]), vision.width)
    dtype = STORED.get(precision_of(known(config)), torch.float32)
    cache = TokenCache(Path(config["data_root"]) / "image_tokens", about, shape, dtype)
    there = [s for s in (*task.train, *task.validate) if table_path(config["data_root"], task.files, s).is_file()]
    rows = sum(len(open_table(config["data_root"], task.files, split, ("image",))) for split in there)
    kept = sum(path.stat().st_size for path in cache.folder.glob("*.tokens"))
    return max(0, rows * cache.image_bytes - kept)


def memory_of_device(config: dict[str, Any]) -> int | None:
    """Bytes that a device has, of several the smallest: of all processes on this machine's CPU their share.

    The driver is asked, no GPU is touched; None where nobody tells.
    """
    if not config["num_gpus"]:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // config["cpu_processes"]
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=60).stdout.split()
    return min((int(number) << 20 for number in said if number.isdigit()), default=None)


def _place(folder: str, setting: str) -> tuple[Path, int]:
    """The folder, or the nearest above it that is there, and its free bytes; raises UserError where none can write."""
    place = Path(folder).absolute()
    place = next(one for one in (place, *place.parents) if one.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
        return place, shutil.disk_usage(place).free
    except OSError as error:
        raise UserError(f"{place} is no folder to write in ({error.strerror}): choose another {setting}.") from error


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
