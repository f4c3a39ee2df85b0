"""The folder of a run: claimed by one run alone, and found again by that run when SLURM requeues its job."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from dvp.files import read_json, remove_leftovers, require_writable, write_json

CLAIM = "claim.json"  # in the folder: the job and the settings of the run that it belongs to
LOCK = "lock"  # in the folder: held by the process that writes there
# What numbers a process among those of one run, as torchrun, Lightning, SLURM, LSF and Open MPI set it.
RANKS = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "OMPI_COMM_WORLD_RANK")


def is_first_process() -> bool:
    """Whether this is the process that writes for all of a run. Known before any of them can talk to the others."""
    if "RANK" in os.environ:  # torchrun's, the rank among all; inside of SLURM too
        return os.environ["RANK"] == "0"
    # SLURM_PROCID alone won't do: the processes that Lightning starts inside of a batch job share it.
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def run_folder(config: dict[str, Any]) -> Path:
    """The folder of this run: its own where its job was requeued, else a new one that no other run can have.

    A training's is `version_<n>`, a test's `test_<n>`. A dry run has none, and only the first process claims one; the
    others, which write nothing, get a place that is never made. Raises UserError when it cannot be written.
    """
    if own := config.get("own_folder"):
        return Path(own)
    parent = parent_of(config)
    if config["fast_dev_run"] or not is_first_process():
        return parent / f"unclaimed-{uuid4().hex}"
    require_writable(parent)
    for other in parent.glob(f"version_*/{CLAIM}"):  # by then it is taken
        take(other.parent, keep=False)  # for its leftovers
    folder = _claim(parent, "test" if config["test_only"] else "version")
    take(folder)
    write_json(folder / CLAIM, _claim_of(config))
    return folder


def requeued_folder(config: dict[str, Any]) -> Path | None:
    """The folder that this training claimed before its SLURM job was requeued, the newest of several; None if none.

    All processes find the same: what another claims meanwhile is new, has no checkpoint, and so changes nothing.
    """
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) == 0 or config["test_only"] or config["fast_dev_run"]:
        return None
    mine = json.loads(json.dumps(_claim_of(config)))
    claims = [path for path in parent_of(config).glob(f"version_*/{CLAIM}") if read_json(path) == mine]
    return max(claims, key=lambda path: _number(path.parent)).parent if claims else None


def take(folder: Path, keep: bool = True) -> bool:
    """Whether no other process writes in the folder of a run; then what killed ones left half-written is removed.

    keep: this process writes there from now on, until it ends.
    """
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    if not _locked(lock, patience=2.0 if keep else 0.0):  # a killed process may still be about to end
        os.close(lock)
        return False
    for place in (folder, folder / "checkpoints"):
        remove_leftovers(place)
    if not keep:
        os.close(lock)
    return True


def parent_of(config: dict[str, Any]) -> Path:
    """The folder of all runs of an experiment's name and seed."""
    return Path(config["log_dir"]) / f"{config['exp_name']}_seed{config['seed']}"


def _claim(parent: Path, kind: str) -> Path:
    number = max((_number(path) for path in parent.glob(f"{kind}_*")), default=-1) + 1
    while True:
        folder = parent / f"{kind}_{number}"
        try:
            folder.mkdir()  # one step, on a shared disk too: of two runs one gets it
            return folder
        except FileExistsError:
            number += 1


def _number(folder: Path) -> int:
    number = folder.name.rpartition("_")[2]
    return int(number) if number.isdecimal() else -1


def _locked(file: int, patience: float) -> bool:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process, not of those that it forks
            return True
        except (BlockingIOError, PermissionError):
            if time.monotonic() >= end:
                return False
            time.sleep(0.1)
        except OSError:  # a disk without locks: a run is trusted to be alone
            return True


def _claim_of(config: dict[str, Any]) -> dict[str, Any]:
    """The settings as they were typed, and the job."""
    typed = {key: value for key, value in config.items() if key not in ("resume_asked", "own_folder")}
    if "resume_asked" in config:
        typed["resume_from"] = config["resume_asked"]
    return {"format": 1, "job": _job(), "config": typed}


def _job() -> str | None:
    """This job among all of all clusters; None outside of SLURM. A requeued job keeps it."""
    job = os.environ.get("SLURM_JOB_ID")
    return job and f"{os.environ.get('SLURM_CLUSTER_NAME', '')}/{job}"
