"""What can be seen to be wrong with a start before torch is imported, which takes seconds."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from dvp.config import SHAPES, SHAPES_MODELS
from dvp.config.rules import PEFT
from dvp.encoders import read_folder, require_size
from dvp.errors import UserError
from dvp.families import family_named, layers_in, require_family
from dvp.files import EXPORTED, RESUME_WORDS, description_name, read_description, read_json
from dvp.manifest import finish
from dvp.runs.folder import RANKS
from dvp.runs.reach import is_nowhere, require_reach
from dvp.tasks import TASKS, require_table


def check_start(config: dict[str, Any]) -> None:
    """Raise UserError where a checked config asks for what this machine does not have: files, a layer, a package."""
    check_data(config)
    check_search_saw(config)
    check_language_model(config)
    check_image_encoder(config["clip_model"], config["image_size"])
    check_packages(config)


def check_data(config: dict[str, Any]) -> None:
    """Raise UserError where the tables that the configured task surely reads are not all there."""
    check_data_root(config)
    for path in missing_tables(config):
        require_table(path, TASKS[config["datasets"]].files)


def check_data_root(config: dict[str, Any]) -> None:
    """Raise UserError where there is no folder of tables; a conversion that was killed behind its end is completed."""
    data_root = config["data_root"]
    if not data_root or not Path(data_root).is_dir():
        way = (
            "draw the embedded world first, with `python run.py shapes`"
            if data_root == SHAPES["data_root"]
            else f"give the folder with the Arrow files, see {TASKS[config['datasets']].guide}"
        )
        raise UserError(f"data_root={data_root!r} is not a folder: {way}.")
    finish(Path(data_root), TASKS[config["datasets"]].files)


def missing_tables(config: dict[str, Any]) -> list[Path]:
    """Of the tables that the configured training or test surely reads, those that are not there."""
    reads = TASKS[config["datasets"]]
    splits = reads.tested(config["test_split"]) if config["test_only"] else reads.train
    paths = [Path(config["data_root"]) / f"{reads.files}_{split}.arrow" for split in splits]
    return [path for path in paths if not path.is_file()]


def check_search_saw(config: dict[str, Any]) -> None:
    """Raise UserError where a run that sees would start from the weights of a search that did not."""
    path = str(config["load_path"] or "")
    if config["image_tokens"] == "zero" or not path or not Path(path).is_dir():
        return
    description = read_description(path)
    if description.get("search_stage") and description.get("blind"):
        raise UserError(
            f"load_path={path} is of a blind search (image_tokens=zero), which saw no picture and tells no K: give one "
            "of a search that sees, or begin anew at insert_layer=<K>."
        )


def check_devices(num_gpus: int, strategy: str) -> None:
    """Raise UserError where there are fewer GPUs, or where the strategy's package is not there."""
    available = _gpus_at_most()
    if available is not None and num_gpus > available:
        raise UserError(
            f"num_gpus={num_gpus} but this machine has {available}: ask for fewer, or num_gpus=0 for the CPU."
        )
    if strategy.startswith("deepspeed"):
        _check_package(f"strategy={strategy}", "deepspeed")


def on_cpu_without_gpus() -> dict[str, int]:
    """The setting of a run on the CPU, where it is known before torch is imported that there is no GPU; else none."""
    return {"num_gpus": 0} if _gpus_at_most() == 0 else {}


def check_launcher(config: dict[str, Any]) -> None:
    """Raise UserError where torchrun started other processes than the settings say, or nothing starts other machines'.

    The numbers must be the settings' own: batches are dealt by them.
    """
    key = "num_gpus" if config["num_gpus"] else "cpu_processes"
    said = {"num_nodes": config["num_nodes"], key: config[key]}
    if "TORCHELASTIC_RUN_ID" in os.environ:
        each = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // each
        if (nodes, each) != tuple(said.values()):
            here = " ".join(f"{name}={value}" for name, value in said.items())
            raise UserError(
                f"torchrun started {nodes} x {each} processes (--nnodes x --nproc-per-node), but {here}: give "
                f"num_nodes={nodes} {key}={each}."
            )
    elif config["num_nodes"] > 1 and not {"RANK", *RANKS} & set(os.environ):
        raise UserError(
            f"num_nodes={config['num_nodes']}, but nothing says which of them this is: start every one with torchrun "
            "or srun, see docs/cluster.md."
        )


def check_packages(config: dict[str, Any]) -> None:
    """Raise UserError where a setting needs a package that is not there."""
    if config["logger"]:
        _check_package(f"logger={config['logger']}", config["logger"])
    if config["quantize"]:
        _check_package(f"quantize={config['quantize']}", "bitsandbytes")
    if config["use_adapter"] in PEFT:
        _check_package(f"use_adapter={config['use_adapter']}", "peft")


def _check_package(setting: str, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{setting} needs the package {package}: pip install {package}")


def _gpus_at_most() -> int | None:
    """How many GPUs torch can find here at most; None where only torch itself can tell."""
    if sys.platform == "darwin":
        return 0  # none of CUDA's
    others = ("/dev/kfd", "/dev/dxg", "/dev/nvmap")  # AMD's, Windows' in its subsystem, those inside a processor
    if sys.platform != "linux" or any(map(os.path.exists, others)):
        return None
    devices = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    cards = Path("/proc/driver/nvidia/gpus")
    available = max(len(devices), len(list(cards.iterdir())) if cards.is_dir() else 0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        available = min(available, len([name for name in visible.split(",") if name.strip() not in ("", "-1")]))
    return available


def check_language_model(config: dict[str, Any]) -> None:
    """Raise UserError where config.json in the folder tells of another model, or of too few layers or positions.

    And where there is neither a folder nor a way to fetch it.
    """
    folder, family = config["tokenizer"], config["language_model"]
    _check_place("tokenizer", folder)
    small = (SHAPES_MODELS / family.lower()).is_dir()
    require_reach(folder, f", or put `shapes` behind the experiment: a tiny {family} is here" if small else "")
    model = _read_model(folder)
    if not model or "model_type" not in model:
        return
    family = require_family(model, folder).upper()
    if family != config["language_model"]:
        raise UserError(
            f"language_model={config['language_model']} but tokenizer={folder} holds a {family} model: "
            "make the two agree."
        )
    counts = ("num_decoder_layers", "num_layers", "num_hidden_layers", "n_layer")
    layers = next((model[key] for key in counts if model.get(key)), None)
    layer = config["insert_layer"]
    several = [] if layer == "auto" else layers_in(layer)
    if not config["search_stage"] and isinstance(layers, int) and any(one >= layers for one in several):
        raise UserError(
            f"insert_layer={layer} is outside this model: {folder} has layers 0 to {layers - 1}; give one of these."
        )
    first, places = family_named(family).first_position, model.get("max_position_embeddings", model.get("n_positions"))
    positions = places - first if first is not None and isinstance(places, int) else None
    if positions and config["max_text_len"] > positions:
        raise UserError(
            f"max_text_len={config['max_text_len']} is too long: {folder} has {positions} positions; "
            f"set max_text_len={positions} or less."
        )


def check_image_encoder(folder: str, image_size: int) -> None:
    """Raise UserError where the files in the folder tell of pictures of another size, or of no encoder that works."""
    _check_place("clip_model", folder)
    if told := read_folder(folder):
        takes, patch = told.settings.get("image_size"), told.settings.get("patch_size")
        require_size(folder, told.row, image_size, takes, patch)


def _read_model(folder: str) -> dict[str, Any] | None:
    """What config.json in the folder of a model says; None where `folder` is none with such a file."""
    path = Path(folder).expanduser() / "config.json"
    if not path.is_file():
        return None
    return read_json(path, remedy="copy the model again")


def _check_place(key: str, place: str) -> None:
    """Raise UserError for a path, not a name on a hub, where nothing is."""
    if is_nowhere(place):
        raise UserError(f"{key}={place}: there is nothing; give a file or folder that is there, or a name.")


def check_checkpoint(key: str, place: str | None) -> None:
    """Raise UserError, with the checkpoint that may be meant, where a setting that names one names something else."""
    if not place or place in RESUME_WORDS:
        return
    path = Path(str(place))
    if not path.exists():
        raise UserError(f"{key}={place}: there is no such checkpoint; give one under log_dir, such as .../last.ckpt.")
    if path.is_file() and description_name(path.parent):
        raise UserError(f"{key}={place} is a part of a checkpoint: give its folder, {key}={path.parent}")
    if key == "resume_from" and description_name(path) == EXPORTED:
        raise UserError(f"{key}={place} was exported, without the state of a run to go on with: give load_path={place}")
    if path.is_dir() and not description_name(path):
        levels = ("", "checkpoints/", "*/checkpoints/", "*/*/checkpoints/")  # of a run, and of runs, by log_dir
        every = [one for level in levels for one in path.glob(f"{level}*.ckpt/description.json")]
        if found := sorted(every, key=lambda one: one.stat().st_mtime_ns):
            raise UserError(
                f"{key}={place} is a folder of {len(found)} checkpoint(s): give one, such as the newest, "
                f"{key}={found[-1].parent}"
            )
