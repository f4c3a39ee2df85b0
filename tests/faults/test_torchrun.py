"""Two machines, as far as one can be two: an agent of torchrun each, which find each other on the loopback.

They search, train and answer as one process does; a worker that is killed is started again and goes on.
"""

import json
import os
import signal
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
    return SETTINGS | places | {"drop_rate": 0.0, "optim_type": "sgd", "learning_rate": 1e-2}


@pytest.fixture
def on_two_machines(free_port: int, tmp_path: Path) -> Any:
    """Runs commands one after another under two agents of torchrun; returns what they print."""
    agents: list[subprocess.Popen] = []

    def call(*commands: list[str], limit: float = 120, **environment: str) -> str:
        words = [word for one in commands for word in (*one, "--")][:-1]
        options = [
            "--nnodes=2", "--nproc-per-node=1", "--max-restarts=2", "--rdzv-backend=c10d", "--rdzv-id=test",
            f"--rdzv-endpoint=127.0.0.1:{free_port}", "--local-addr=127.0.0.1", "--monitor-interval=0.1",
        ]  # fmt: skip
        torchrun = [sys.executable, "-m", "torch.distributed.run", *options]
        script = str(Path(__file__).with_name("in_turn.py"))
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
        said = tmp_path / "said.txt"
        with open(said, "w") as file:
            for _ in range(2):
                agents.append(subprocess.Popen([*torchrun, script, *words], cwd=ROOT, env=environment, stdout=file,
                                               stderr=file, start_new_session=True))  # fmt: skip
            codes = [agent.wait(limit) for agent in agents]
        assert codes == [0, 0], said.read_text()[-5000:]
        return said.read_text()

    yield call
    for agent in agents:
        if agent.poll() is None:
            os.killpg(agent.pid, signal.SIGTERM)
            agent.wait(60)


def words(experiment: str, settings: dict[str, Any], **changes: Any) -> list[str]:
    """A command of these settings."""
    return ["with", experiment, *(f"{key}={value}" for key, value in (settings | changes).items())]


def searches_trains_and_answers(settings: dict[str, Any], log_dir: Path) -> list[list[str]]:
    """The three commands of a user."""
    name = EXPERIMENTS["training"]
    last = log_dir / f"{name}_seed0" / "version_0" / "checkpoints" / "last.ckpt"
    settings = settings | {"log_dir": log_dir, "max_epoch": 2}
    return [
        words(EXPERIMENTS["search"], settings),
        words(name, settings, insert_layer=1),
        words(name, settings, insert_layer=1, test_only=True, load_path=last),
    ]


def test_two_machines_search_train_and_answer_as_one_process(world, on_two_machines, tmp_path: Path) -> None:
    def alone() -> None:
        for one in searches_trains_and_answers(world, tmp_path / "one"):
            run.ex.observers.clear()
            run.ex.run_commandline(["run.py", *one])

    assert not forked(alone, tmp_path / "one.txt")
    two = world | {"num_nodes": 2, "per_gpu_batchsize": 1}
    said = on_two_machines(*searches_trains_and_answers(two, tmp_path / "two"))
    assert said.count("on 2 x CPU") == 2 and "Traceback" not in said
    searches = [json.loads((tmp_path / place / f"{EXPERIMENTS['search']}_seed0" / "version_0" / "search.json")
                .read_text()) for place in ("one", "two")]  # fmt: skip
    assert [one["world_size"] for one in searches] == [1, 2]
    for key in ("insert_layer", "updates", "finished"):
        assert searches[0][key] == searches[1][key]
    assert searches[0]["preferences"] == pytest.approx(searches[1]["preferences"], abs=1e-5)
    for name in EXPERIMENTS.values():
        place = Path(f"{name}_seed0", "version_0", "checkpoints", "last.ckpt")
        one, other = (read_checkpoint(str(tmp_path / where / place))[0] for where in ("one", "two"))
        for key, tensor in one.items():
            torch.testing.assert_close(tensor, other[key], rtol=0, atol=1e-5, msg=f"{name} {key}")
    answers = [json.loads((tmp_path / place / "vqa_submit_last.json").read_text()) for place in ("one", "two")]
    assert len(answers[0]) == 8 and answers[0] == answers[1]


def test_a_killed_worker_is_started_again_and_goes_on(world, on_two_machines, tmp_path: Path) -> None:
    settings = world | {"per_gpu_batchsize": 1, "max_epoch": 2, "save_every": 1, "drop_rate": 0.1}
    whole = {"cpu_processes": 2, "log_dir": tmp_path / "whole"}
    in_two_processes(command, "search", settings | whole)
    killed = settings | {"num_nodes": 2, "log_dir": tmp_path / "killed", "resume_from": "auto"}
    said = on_two_machines(words(EXPERIMENTS["search"], killed), KILLED=str(tmp_path / "mark"))
    assert (tmp_path / "mark").exists()
    assert said.count("begins anew") == 1 and said.count("goes on from") == 1, said
    assert divergences(outcome(tmp_path / "whole"), outcome(tmp_path / "killed")) == []


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
