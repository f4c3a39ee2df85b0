"""Two machines, as far as one can be two: an agent of torchrun each, which find each other on the loopback.

They search, train and answer as one process does; a worker that is killed is started again and goes on.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.trials import EXPERIMENTS, SETTINGS, command, divergences, forked, outcome
from tiny_world import write_clip, write_data, write_language_model
from two_processes import in_two_processes

import run
from dvp.checkpoints import read_checkpoint
from dvp.commands import hooks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The settings of a run without dropout, of which every process would draw its own."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("bert", "clip", "data"):
        (folder / name).mkdir()
    write_language_model(folder / "bert", "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    write_clip(folder / "clip")
    write_data(folder / "data", "vqa")
    places = {"tokenizer": folder / "bert", "clip_model": folder / "clip", "data_root": folder / "data"}
    # SGD: by Adam's, weights whose gradient is nothing but rounding, such as biases of keys, move by a whole rate.
    return SETTINGS | places | {"drop_rate": 0.0, "optim_type": "sgd", "learning_rate": 1e-2, "save_every": 1}


def words(experiment: str, settings: dict[str, Any], **changes: Any) -> list[str]:
    """A command of these settings."""
    return ["with", experiment, *(f"{key}={value}" for key, value in (settings | changes).items())]


def searches_trains_and_answers(settings: dict[str, Any], log_dir: Path) -> list[list[str]]:
    """The three commands of a user."""
    name = EXPERIMENTS["training"]
    last = log_dir / f"{name}_seed0" / "version_0" / "checkpoints" / "last.ckpt"
    settings = settings | {"log_dir": log_dir, "max_epoch": 1}
    return [
        words(EXPERIMENTS["search"], settings, resume_from="auto"),
        words(name, settings, insert_layer=1, resume_from="auto"),
        words(name, settings, insert_layer=1, test_only=True, load_path=last),
    ]


@pytest.fixture(scope="module")
def killed(world: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The log_dir of the three commands under two agents, a worker of whom is killed once, and what they said."""
    place = tmp_path_factory.mktemp("killed")
    commands = searches_trains_and_answers(world | {"num_nodes": 2, "per_gpu_batchsize": 1}, place / "run")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=2",
        "--rdzv-backend=c10d", "--rdzv-id=test", f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1",
        "--monitor-interval=0.1", str(Path(__file__).with_name("in_turn.py")),
    ]  # fmt: skip
    typed = [word for one in commands for word in (*one, "--")][:-1]
    # Else torchrun keeps the addresses of killed processes, which those that are started again may call.
    fresh = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    own = fresh | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "KILLED": str(place / "mark")}
    options = {"cwd": ROOT, "env": os.environ | own, "start_new_session": True}
    with open(place / "said.txt", "w") as said:
        agents = [subprocess.Popen([*torchrun, *typed], stdout=said, stderr=said, **options) for _ in range(2)]
        try:
            codes = [agent.wait(180) for agent in agents]
        finally:
            for agent in agents:
                if agent.poll() is None:
                    agent.terminate()
                    agent.wait(60)
    told = (place / "said.txt").read_text()
    assert codes == [0, 0] and (place / "mark").exists(), told[-5000:]
    return place / "run", told


@pytest.mark.two_processes
def test_a_killed_worker_is_started_again_and_goes_on(world, killed, tmp_path: Path) -> None:
    log_dir, said = killed
    assert said.count("begins anew") == 2 and said.count("goes on from") == 1, said
    assert said.count("on 2 x CPU") == 3  # the search twice
    settings = world | {"per_gpu_batchsize": 1, "max_epoch": 1, "cpu_processes": 2}
    in_two_processes(command, "search", settings, log_dir=tmp_path)
    name = f"{EXPERIMENTS['search']}_seed0"
    copy = shutil.copytree(log_dir / name, tmp_path / "killed" / name, symlinks=True)
    assert divergences(outcome(tmp_path), outcome(copy.parent)) == []


@pytest.mark.two_processes
def test_two_machines_search_train_and_answer_as_one_process(world, killed, tmp_path: Path) -> None:
    def alone() -> None:
        for one in searches_trains_and_answers(world, tmp_path / "run"):
            run.ex.observers.clear()
            run.ex.run_commandline(["run.py", *one])

    assert not forked(alone, tmp_path / "one.txt")
    places = tmp_path / "run", killed[0]
    searches = [
        json.loads((place / f"{EXPERIMENTS['search']}_seed0" / "version_0" / "search.json").read_text())
        for place in places
    ]
    assert [one["world_size"] for one in searches] == [1, 2]
    for key in ("insert_layer", "updates", "finished"):
        assert searches[0][key] == searches[1][key]
    assert searches[0]["preferences"] == pytest.approx(searches[1]["preferences"], abs=1e-5)
    for name in EXPERIMENTS.values():
        last = Path(f"{name}_seed0", "version_0", "checkpoints", "last.ckpt")
        one, other = (read_checkpoint(str(place / last))[0] for place in places)
        for key, tensor in one.items():
            torch.testing.assert_close(tensor, other[key], rtol=0, atol=1e-5, msg=f"{name} {key}")
    answers = [json.loads((place / "vqa_submit_last.json").read_text()) for place in places]
    assert len(answers[0]) == 8 and answers[0] == answers[1]


# What torchrun starts and the settings must agree

STARTED = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    "environment, settings, remedy",
    [
        (STARTED, {}, "num_nodes=2 cpu_processes=2"),
        (STARTED, {"cpu_processes": 4}, "num_nodes=2 cpu_processes=2"),
        (STARTED | {"WORLD_SIZE": "2"}, {"num_nodes": 2}, "num_nodes=1 cpu_processes=2"),
        ({}, {"num_nodes": 2}, "start every one with torchrun or srun"),
    ],
)
def test_other_numbers_than_torchruns_are_refused(
    environment: dict[str, str], settings: dict[str, Any], remedy: str, refused: Callable[..., str], tiny,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    name = EXPERIMENTS["search"]
    assert remedy in refused("with", name, **tiny(name, per_gpu_batchsize=1) | settings)


def test_without_the_guard_each_of_torchruns_processes_searches_alone(command, tiny, monkeypatch) -> None:
    for name, value in STARTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hooks, "check_launcher", lambda config: None)
    settings = tiny(EXPERIMENTS["search"], per_gpu_batchsize=1)
    command("with", EXPERIMENTS["search"], **settings)
    (record,) = Path(settings["log_dir"]).rglob("search.json")
    assert json.loads(record.read_text())["world_size"] == 1  # of the four
