"""A run has its folder to itself, and only its own job, requeued, finds it again."""

import csv
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny_world import fit

from dvp.checkpoints import read_progress
from dvp.runs import folder, trainer
from dvp.runs.auto import newest_whole, settle_resume
from dvp.runs.folder import RANKS, is_first_process, requeued_folder, run_folder

ROOT = Path(__file__).parents[2]
JOB = {
    "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
}  # fmt: skip


@pytest.fixture(autouse=True)
def outside_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_") or name in (*RANKS, "RANK")]:
        monkeypatch.delenv(name)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts this process into a SLURM job, as its first task."""

    def enter(**changes: Any) -> None:
        for name, value in (JOB | changes).items():
            monkeypatch.setenv(name, str(value))

    return enter


def settings(log_dir: Path, **changes: Any) -> dict[str, Any]:
    own = {"log_dir": str(log_dir), "exp_name": "e", "seed": 0, "fast_dev_run": False, "test_only": False}
    return own | changes


def test_of_many_runs_at_once_each_gets_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: run_folder(settings(tmp_path)), range(64)))
    assert sorted(path.name for path in found) == sorted(f"version_{number}" for number in range(64))


def test_without_one_step_two_runs_get_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_first(self: Path) -> None:
        if self.exists():
            raise FileExistsError
        time.sleep(0.05)
        os.makedirs(self, exist_ok=True)

    monkeypatch.setattr(Path, "mkdir", look_first)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: folder._claim(tmp_path, "version"), range(4)))
    assert len(set(found)) < 4


def test_processes_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    script = f"from dvp.runs.folder import run_folder; print(run_folder({settings(tmp_path)!r}))"
    started = [subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 4


def test_tests_and_dry_runs_use_up_no_version(tmp_path: Path) -> None:
    assert run_folder(settings(tmp_path, test_only=True)).name == "test_0"
    dry = run_folder(settings(tmp_path, fast_dev_run=True))
    assert not dry.exists()
    assert run_folder(settings(tmp_path)).name == "version_0"
    assert run_folder(settings(tmp_path, test_only=True)).name == "test_1"


def test_a_new_folder_is_beyond_those_that_were_there(tmp_path: Path) -> None:
    for name in ("version_7", "version_x", "version_12", "hpc_ckpt_3.ckpt"):
        (tmp_path / "e_seed0" / name).mkdir(parents=True)
    assert run_folder(settings(tmp_path)).name == "version_13"


FIRST = [
    {}, {"LOCAL_RANK": "0"}, {"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, {"SLURM_PROCID": "0"},
    {"NODE_RANK": "0"}, {"RANK": "0", "GROUP_RANK": "0"},
]  # fmt: skip
LATER = [
    {"LOCAL_RANK": "1"}, {"SLURM_PROCID": "1"}, {"RANK": "1", "LOCAL_RANK": "0", "GROUP_RANK": "1"},
    {"NODE_RANK": "1"}, {"NODE_RANK": "1", "LOCAL_RANK": "0"}, {"SLURM_PROCID": "0", "LOCAL_RANK": "1"},
]  # fmt: skip


@pytest.mark.parametrize("first, ranks", [(True, ranks) for ranks in FIRST] + [(False, ranks) for ranks in LATER])
def test_one_process_of_a_run_writes(first: bool, ranks: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first
    run_folder(settings(tmp_path))
    assert (tmp_path / "e_seed0" / "version_0").exists() is first


def test_two_tasks_of_srun_leave_one_record(command, tiny, job) -> None:
    options = tiny("dvp_adaption_bert_vqa", fast_dev_run=True)
    for rank in (1, 0):
        job(SLURM_PROCID=rank)
        command("with", "dvp_adaption_bert_vqa", **options)
        records = Path(options["log_dir"]) / "sacred"
        assert [path.name for path in records.glob("[0-9]*")] == ([] if rank else ["1"])


# A requeued job


def test_only_a_requeued_job_finds_its_folder(tmp_path: Path, job) -> None:
    mine = settings(tmp_path)
    job()
    folder = run_folder(mine)
    assert requeued_folder(mine) is None
    assert run_folder(mine) != folder  # the same command again, in the same job
    job(SLURM_RESTART_COUNT=1)
    assert requeued_folder(mine) == folder.with_name("version_1")  # of equals the newest
    assert requeued_folder(settings(tmp_path, insert_layer=3)) is None
    for other in ({"SLURM_JOB_ID": "78"}, {"SLURM_CLUSTER_NAME": "other"}):
        job(SLURM_RESTART_COUNT=1, **other)
        assert requeued_folder(mine) is None


def test_without_the_jobs_name_another_job_goes_on_there(tmp_path: Path, job, monkeypatch) -> None:
    monkeypatch.setattr(folder, "_job", lambda: None)
    job()
    own = run_folder(settings(tmp_path))
    job(SLURM_JOB_ID=78, SLURM_RESTART_COUNT=1)
    assert requeued_folder(settings(tmp_path)) == own


class Interrupt(pl.Callback):
    """What SLURM does to a job of which the time is up, in the second epoch."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            raise RuntimeError("killed")


@pytest.mark.parametrize("start", ["fresh", "resume_from", "load_path"])
def test_a_requeued_job_goes_on_from_its_own_last_checkpoint(start: str, configure, job, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pytorch_lightning.trainer.connectors.signal_connector.call", lambda *_, **__: 0)  # scontrol
    config = configure("dvp_adaption_bert_vqa", max_steps=None, max_epoch=3)
    if start != "fresh":
        fit(config | {"max_epoch": 1, "log_dir": str(tmp_path / "before")})
        (last,) = (tmp_path / "before").rglob("last.ckpt")
        config |= {start: str(last)}
    job()
    with pytest.raises(RuntimeError, match="killed"):
        fit(config, Interrupt())
    (own,) = Path(config["log_dir"]).rglob("hpc_ckpt_1.ckpt")
    job(SLURM_RESTART_COUNT=1)
    begun: list[int] = []

    class Begin(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
            begun.append(trainer.global_step)

    trainer = fit(config, Begin())
    assert begun == [read_progress(str(own))["global_step"]] == [3]
    assert trainer.global_step == 6
    assert Path(trainer.log_dir) == own.parent
    assert [path.name for path in own.parent.parent.iterdir()] == ["version_0"]
    with open(own.parent / "metrics.csv", encoding="utf-8") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["vqa/rest_val/score"]]
    assert steps == [1, 3, 5]  # each epoch's validation once, with those of the run that this one is the rest of


def test_a_requeued_job_without_a_checkpoint_starts_as_it_did(configure, job, tmp_path: Path) -> None:
    job()
    config = configure("dvp_adaption_bert_vqa", resume_from=str(tmp_path / "x.ckpt"))
    folder = run_folder(config)
    job(SLURM_RESTART_COUNT=1)
    settled = settle_resume(config)
    assert run_folder(settled) == folder
    assert settled["resume_from"] == str(tmp_path / "x.ckpt")


@pytest.mark.parametrize("guarded", [True, False])
def test_what_another_run_left_for_its_requeue_is_not_taken_up(
    guarded: bool, configure, job, tmp_path, monkeypatch
) -> None:
    config = configure("dvp_adaption_bert_vqa", max_steps=2)
    expected = fit(config).lightning_module.state_dict()
    other = fit(configure("dvp_adaption_bert_vqa", max_steps=1, seed=5))
    monkeypatch.chdir(tmp_path)
    left = Path(other.log_dir) / "checkpoints" / "last.ckpt"
    parent = Path(config["log_dir"]) / "dvp_adaption_bert_vqa_seed0"
    for place in (tmp_path, tmp_path / "result", parent, parent / "version_0"):
        shutil.copytree(left, place / "hpc_ckpt_9.ckpt")
    if not guarded:
        own = pl.Trainer
        monkeypatch.setattr(pl, "Trainer", lambda **options: own(**options | {"default_root_dir": None}))
    for restarts in (0, 1):
        job(SLURM_RESTART_COUNT=restarts)
        trainer = fit(config)
        assert trainer.global_step == 2
        weights = trainer.lightning_module.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items()) == guarded


def test_a_test_answers_with_the_checkpoint_that_it_was_given(command, tiny, job, tmp_path, monkeypatch) -> None:
    options = tiny("dvp_adaption_bert_vqa", max_steps=1)
    for seed in (0, 5):
        command("with", "dvp_adaption_bert_vqa", **options, seed=seed)
    folder = Path(options["log_dir"]) / "dvp_adaption_bert_vqa_seed0"
    asked = options | {"test_only": True, "load_path": folder / "version_0" / "checkpoints" / "last.ckpt"}
    answers = Path(options["log_dir"]) / "vqa_submit_last.json"
    command("with", "dvp_adaption_bert_vqa", **asked)
    expected = answers.read_text()
    job()
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path, folder):
        shutil.copytree(folder.with_name("dvp_adaption_bert_vqa_seed5") / "version_0/checkpoints/last.ckpt",
                        place / "hpc_ckpt_9.ckpt")  # fmt: skip
    command("with", "dvp_adaption_bert_vqa", **asked)
    assert answers.read_text() == expected
    assert sorted(path.name for path in folder.glob("*_[0-9]")) == ["test_0", "test_1", "version_0"]


def test_runs_that_are_passed_over_have_a_line_and_no_warning(command, tiny, tmp_path, capsys) -> None:
    options = tiny("dvp_adaption_bert_vqa", max_steps=1)
    for rate in (1e-3, 2e-3, 3e-3):
        command("with", "dvp_adaption_bert_vqa", **options, learning_rate=rate)
    capsys.readouterr()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        importlib.reload(trainer)  # whose filters are what pytest's own stand before
        for _ in range(2):
            command("with", "dvp_adaption_bert_vqa", **options, learning_rate=4e-3, resume_from="auto")
    passed = [line for line in capsys.readouterr().out.splitlines() if "passes over" in line]
    assert len(passed) == 2 and passed[0] == passed[1]
    assert "passes over 3 runs of other settings, the newest: " in passed[0]
    assert passed[0].endswith("version_2 has learning_rate=0.003, here 0.004")
    assert not [str(one.message) for one in warned if "is not empty" in str(one.message)]


def test_the_newest_checkpoint_is_the_one_written_last_that_is_whole(configure, tmp_path: Path, capsys) -> None:
    assert newest_whole([tmp_path]) is None
    (last,) = Path(fit(configure("dvp_adaption_bert_vqa", max_steps=1)).log_dir).rglob("last.ckpt")
    for age, name in enumerate(("hpc_ckpt_2.ckpt", "checkpoints/last-epoch=0-pass=4.ckpt", "checkpoints/epoch=0.ckpt")):
        shutil.copytree(last, tmp_path / name)
        os.utime(tmp_path / name / "training.json", (1000 - age, 1000 - age))
    assert newest_whole([tmp_path]) == tmp_path / "hpc_ckpt_2.ckpt"
    (tmp_path / "hpc_ckpt_2.ckpt" / "weights.safetensors").write_bytes(b"half")
    capsys.readouterr()
    assert newest_whole([tmp_path]) == tmp_path / "checkpoints" / "last-epoch=0-pass=4.ckpt"
    assert "hpc_ckpt_2.ckpt is damaged" in capsys.readouterr().out
