"""Runs that are killed and go on, beside one that never stopped: in forked processes, which start in no time."""

import contextlib
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tiny_world import PIXELS, SPLITS, rows_of, write_clip, write_language_model, write_table

import run
from dvp.answering import many
from dvp.checkpoints import read_checkpoint
from dvp.module import DVPModule
from dvp.tasks import TASKS

# 16 rows in passes of 2: an epoch has 4 updates, of which it is validated in the middle, too.
SETTINGS = {
    "image_size": PIXELS, "num_heads": 4, "num_gpus": 0, "num_workers": 0, "batch_size": 4, "per_gpu_batchsize": 2,
    "image_tokens": "live", "max_steps": None, "max_epoch": 3, "learning_rate": 0.003,
}  # fmt: skip
EXPERIMENTS = {"training": "dvp_adaption_bert_vqa", "search": "dvp_search_bert_vqa"}
ANSWERS = 30
PASSES, WRITES = 24, 150  # of a run: passes, and about as many steps that change files
# What is called so often; "within": a pass within an epoch, not the first of one.
CALLS = {name: (DVPModule, "training_step") for name in ("passes", "within")} | {"answers": (many, "_answer")}
EVENTS = {"open", "os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir"}


class Kill(NamedTuple):
    """When a run is killed: before pass number `at`, or before step number `at` that changes a file under log_dir."""

    what: str  # a key of CALLS, writes, or one of EVENTS
    at: int


def make_world(folder: Path) -> dict[str, Any]:
    """The settings of a run on tiny random models and data, written into `folder`."""
    for name in ("bert", "clip", "data"):
        (folder / name).mkdir(parents=True)
    # Large weights and many half-right answers: each arm answers, and earns, differently, which moves the preferences.
    write_language_model(folder / "bert", "bert", initializer_range=1.0)
    write_clip(folder / "clip")
    generator = random.Random(0)
    for split in SPLITS["vqa"]:
        rows = [row | _half_right(row, generator) for row in rows_of("vqa", split)]
        write_table(folder / "data" / f"{TASKS['vqa'].files}_{split}.arrow", rows)
    places = {"tokenizer": folder / "bert", "clip_model": folder / "clip", "data_root": folder / "data"}
    return SETTINGS | {name: str(path) for name, path in places.items()}


def _half_right(row: dict[str, Any], generator: random.Random) -> dict[str, Any]:
    """All answers to every question of a row that has answers, with scores that are drawn."""
    if not row["answers"]:
        return {}
    asked, labels = range(len(row["questions"])), list(range(ANSWERS))
    scores = [[generator.choice([0.0, 0.3, 0.6, 0.9, 1.0]) for _ in labels] for _ in asked]
    return {"answers": [[f"a{label}" for label in labels] for _ in asked], "answer_labels": [labels for _ in asked],
            "answer_scores": scores}  # fmt: skip


def arm(kill: Kill, log_dir: Path) -> None:
    """Let this process kill itself then."""
    count = 0

    def step(*args: Any) -> None:
        nonlocal count
        count += kill.what != "within" or args[-1] > 0  # the pass of the epoch
        if count == kill.at:
            os.kill(os.getpid(), signal.SIGKILL)

    if kill.what in CALLS:
        owner, name = CALLS[kill.what]
        before = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            step(*args)
            return before(*args, **options)

        setattr(owner, name, call)
        return

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in EVENTS or not any(str(path).startswith(str(log_dir)) for path in args[:2]):
            return
        if kill.what in ("writes", event) and (event != "open" or args[2] & (os.O_WRONLY | os.O_RDWR)):
            step()

    sys.addaudithook(hook)


def arm_signal(signum: signal.Signals, at: int, send: Callable[[int, int], None] = os.kill) -> None:
    """Let this process send itself, or by os.killpg its whole group, a signal in its pass number `at`."""
    before, count = DVPModule.training_step, 0

    def training_step(self: DVPModule, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            send(os.getpid(), signum)
        return before(self, *args)

    DVPModule.training_step = training_step


def forked(call: Callable[[], None], said: Path, limit: float = 60) -> int:
    """The exit code of a forked process that does this; negative for a signal. What it says goes into `said`."""
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        end = time.monotonic() + limit
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError(f"hangs: {said.read_text()[-2000:]}")
    code = 70
    try:
        with open(said, "a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        torch.set_num_threads(1)
        os.fsync = lambda file: None  # for the end of a machine, not of a process
        call()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(ValueError, OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def say(*words: str) -> None:
    """Run a command in this process."""
    run.ex.observers.clear()
    run.ex.run_commandline(["run.py", *words])


def command(kind: str, settings: dict[str, Any], **changes: Any) -> None:
    """Run the command of a kind of EXPERIMENTS in this process."""
    say("with", EXPERIMENTS[kind], *(f"{key}={value}" for key, value in (settings | changes).items()))


def draw(generator: random.Random, what: str, share: float = 1.0) -> Kill:
    """A kill before one of the passes or of the writes of this share of a run."""
    return Kill(what, generator.randint(1, int(share * (WRITES if what == "writes" else PASSES))))


def once(
    kind: str, settings: dict[str, Any], log_dir: Path, kill: Kill | None = None, off: Callable[[], Any] = lambda: None
) -> bool:
    """Whether a run was killed before it came to its end. off: called in its process first. What it says goes beside
    `log_dir`. Raises AssertionError where it fails.
    """

    def call() -> None:
        off()
        if kill:
            arm(kill, log_dir)
        command(kind, settings, log_dir=str(log_dir))

    code, said = forked(call, log_dir.with_suffix(".txt")), log_dir.with_suffix(".txt")
    assert code == 0 or kill and code == -signal.SIGKILL, f"exit code {code}: {said.read_text()[-3000:]}"
    return code != 0


def to_the_end(
    kind: str, settings: dict[str, Any], log_dir: Path, kills: Sequence[Kill], off: Callable[[], Any] = lambda: None
) -> int:
    """How often a run was killed, and started again, before it came to its end."""
    for died, kill in enumerate([*kills, None]):
        if not once(kind, settings | ({"resume_from": "auto"} if died else {}), log_dir, kill, off):
            break
    return died


def outcome(log_dir: Path) -> dict[str, Any]:
    """All of a run that must not depend on kills: weights, the best checkpoint, metrics.csv, what a search found."""
    folders = {path.parent.parent for path in log_dir.glob("*/version_*/checkpoints/last.ckpt")}
    (folder,) = folders if len(folders) == 1 else [max(folders, key=lambda path: path.stat().st_mtime_ns)]
    (last,) = folder.glob("checkpoints/last.ckpt")
    best = sorted(path.name for path in folder.glob("checkpoints/epoch=*.ckpt"))
    link = re.sub(r"-v\d+(?=\.ckpt$)", "", os.readlink(last))  # a place that a killed run has filled is not used again
    found: dict[str, Any] = {"best": best, "link": link}
    for name, path in (("last", last), *((name, folder / "checkpoints" / name) for name in best)):
        found |= {f"{name}: {key}": tensor for key, tensor in read_checkpoint(str(path))[0].items()}
    found["metrics"] = (folder / "metrics.csv").read_bytes()
    found["hidden"] = sorted(str(path) for path in folder.rglob(".*"))
    if (folder / "search.json").is_file():
        search = json.loads((folder / "search.json").read_text())
        told = ("finished", "insert_layer", "preferences", "mean_scores", "verdict", "trace", "updates")
        found |= {key: search[key] for key in told if key in search}
    return found


def divergences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The names of what differs, to the bit."""

    def same(one: Any, other: Any) -> bool:
        return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other

    return [key for key in expected.keys() | found.keys()
            if key not in expected or key not in found or not same(expected[key], found[key])]  # fmt: skip
