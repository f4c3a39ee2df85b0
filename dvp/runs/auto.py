"""Where a run goes on by itself: in the folder of its requeued job, or with resume_from=auto in its experiment's."""

import json
import os
from pathlib import Path
from typing import Any

from dvp.checkpoints import TrainedOnly, read_progress
from dvp.counting import number_of
from dvp.errors import UserError
from dvp.files import RESUME_WORDS as AUTO
from dvp.files import read_json, require_fields
from dvp.runs.folder import CLAIM, is_first_process, parent_of, requeued_folder, take

# What changes nothing that is computed; all other settings are those of an experiment.
FREE = ("resume_from", "save_every", "num_workers", "log_dir", "image_tokens_on")
AWAY = "remove it, or its folder"  # a damaged claim
PATHS = ("data_root", "tokenizer", "clip_model", "load_path")


def settle_resume(config: dict[str, Any]) -> dict[str, Any]:
    """The checked config of a training with the path that it goes on from, None for none, and `own_folder`, where it
    goes on by itself: that of the run which it is the rest of.

    Raises UserError where another process still writes there.
    """
    if config["test_only"] or config["fast_dev_run"]:
        return config | {"resume_from": None if config["resume_from"] in AUTO else config["resume_from"]}
    asked = config["resume_from"]
    found, folder = None, requeued_folder(config)
    if folder:
        found = newest_whole([folder])
    elif asked in AUTO:
        found = newest_whole(_folders_of(config))
        folder = found and found.parent if found and found.name.startswith("hpc_ckpt_") else found and found.parents[1]
        if is_first_process():
            print(f"resume_from={asked}: goes on from {found}" if found else f"resume_from={asked}: begins anew")
    if folder and is_first_process() and not take(folder):
        raise UserError(f"{folder} is still being written by another process: wait until it has ended, or end it.")
    going_on = str(found) if found else None if asked in AUTO else asked
    return config | {"resume_from": going_on, "resume_asked": asked, "own_folder": folder and str(folder)}


def has_ended(config: dict[str, Any]) -> bool:
    """Whether the training that resume_from=auto finds for this checked config has come to its end."""
    found = newest_whole(_folders_of(config, tell=False))
    if not found:
        return False
    progress = read_progress(str(found))
    if config["max_steps"] is None:
        return progress["epochs"] >= config["max_epoch"]
    return progress["global_step"] >= config["max_steps"]


def newest_whole(folders: list[Path]) -> Path | None:
    """The checkpoint written last in the folders of runs that can be read; damaged ones before it are named."""
    places = ("checkpoints/*.ckpt/training.json", "hpc_ckpt_*.ckpt/training.json")
    found = {path.parent.resolve(): path for folder in folders for place in places for path in folder.glob(place)}
    for path in sorted(found, key=lambda path: (path / "training.json").stat().st_mtime_ns, reverse=True):
        try:
            TrainedOnly().load_checkpoint(str(path))
            return path
        except UserError as error:
            if is_first_process():
                print(f"{error} The one before it is looked for.")
    return None


def _folders_of(config: dict[str, Any], tell: bool = True) -> list[Path]:
    """The folders of runs of this experiment; if `tell`, how many others lie beside them, and what the newest has."""
    folders, others = [], []
    for path in sorted(parent_of(config).glob(f"version_*/{CLAIM}"), key=lambda path: path.stat().st_mtime_ns):
        then = _read_claim(path)
        other = [key for key in then if key in config and key not in FREE and _differ(key, then[key], config[key])]
        if other:
            listed = ", ".join(f"{key}={then[key]}, here {config[key]}" for key in other[:3])
            others.append(f"{path.parent} has {listed}")
        else:
            folders.append(path.parent)
    if others and tell and is_first_process():
        told = f"{number_of(len(others), 'run')} of other settings, the newest"
        print(f"resume_from={config['resume_from']} passes over {told}: {others[-1]}")
    return folders


def _read_claim(path: Path) -> dict[str, Any]:
    claim = read_json(path, remedy=AWAY)
    require_fields(path, claim, {"config": dict}, AWAY)
    return claim["config"]


def _differ(key: str, then: Any, now: Any) -> bool:
    if key in PATHS and then and now:
        return os.path.abspath(then) != os.path.abspath(now)
    return then != json.loads(json.dumps(now))
