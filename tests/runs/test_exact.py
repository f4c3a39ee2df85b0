"""A run that goes on ends as one that never stopped: the same rows, dropout, arms, scores and weights, bit for bit."""

import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny_world import fit, rows_of, write_table
from two_processes import in_two_processes

from dvp.adapters import ADAPTERS
from dvp.checkpoints import TrainedOnly, is_adapter, read_checkpoint, trained_state
from dvp.runs import saving

# 16 rows: two updates of three passes and one of two, so that half of an epoch's 8 passes end within an update.
EPOCHS = {"max_steps": None, "max_epoch": 3, "batch_size": 6, "per_gpu_batchsize": 2, "val_check_interval": 0.5}


class Watch(pl.Callback):
    """Notes what every pass did, and keeps the last checkpoint of before some passes of the second epoch."""

    def __init__(self, keep: Path | None = None, before: dict[int, str] | None = None):
        self.keep, self.before = keep, before or {}
        self.seen: list[tuple[int, int, int, float]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.arm = pl_module.arm
        if self.keep and trainer.current_epoch == 1 and batch_idx in self.before and trainer.is_global_zero:
            (last,) = Path(trainer.default_root_dir).rglob("last.ckpt")
            shutil.copytree(last, self.keep / f"{self.before[batch_idx]}.ckpt")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append((trainer.current_epoch, batch_idx, self.arm, outputs["loss"].item()))


def assert_same(module: pl.LightningModule, other: pl.LightningModule) -> None:
    expected, found = trained_state(module), trained_state(other)
    assert expected.keys() == found.keys()
    assert max((expected[name] - found[name]).abs().max().item() for name in expected) == 0
    if module.bandit:
        assert other.bandit.summary() == module.bandit.summary()


@pytest.mark.parametrize("by_length", [False, True], ids=["shuffled", "by length"])
@pytest.mark.parametrize("experiment", ["dvp_search_bert_vqa", "dvp_adaption_bert_vqa"])
def test_a_resumed_run_is_the_run_that_never_stopped(
    experiment: str, by_length: bool, configure, tmp_path: Path
) -> None:
    config = configure(experiment, **EPOCHS, bucket_by_length=by_length)
    whole = Watch(tmp_path, {0: "end", 5: "within"})
    expected = fit(config, whole).lightning_module
    assert len(whole.seen) == 24 and len({loss for *_, loss in whole.seen}) == 24
    assert "gradients" in TrainedOnly().load_checkpoint(str(tmp_path / "within.ckpt"))
    for name, left in (("end", 16), ("within", 12)):
        for workers in (0, 2):
            rest = Watch()
            there = {"resume_from": str(tmp_path / f"{name}.ckpt"), "num_workers": workers}
            resumed = fit(config | there | {"log_dir": str(tmp_path / f"{name}{workers}")}, rest).lightning_module
            assert rest.seen == whole.seen[-left:]
            assert_same(expected, resumed)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_with_adapters_of_every_kind_it_is_the_run_that_never_stopped(kind: bool | str, configure, tmp_path) -> None:
    config = configure("dvp_search_bert_vqa", **EPOCHS, use_adapter=kind, lora_dropout=0.2)
    whole, rest = Watch(tmp_path, {5: "within"}), Watch()
    expected = fit(config, whole).lightning_module
    there = {"resume_from": str(tmp_path / "within.ckpt"), "log_dir": str(tmp_path / "rest")}
    resumed = fit(config | there, rest).lightning_module
    assert rest.seen == whole.seen[-12:]
    assert_same(expected, resumed)


@pytest.mark.parametrize("stopped, goes_on", [(4, {}), (3, {"max_epoch": 1000, "max_steps": 9}), (4, {"max_steps": 9})])
def test_a_run_that_max_steps_ended_goes_on_with_the_rest_of_the_epoch(
    stopped: int, goes_on: dict[str, Any], configure, tmp_path: Path
) -> None:
    config = configure("dvp_adaption_bert_vqa", **EPOCHS | {"val_check_interval": 1.0}, decay_power="constant")
    whole, rest = Watch(), Watch()
    expected = fit(config | {"log_dir": str(tmp_path / "whole")}, whole).lightning_module
    part = fit(config | {"max_steps": stopped})
    (last,) = Path(part.log_dir).rglob("last.ckpt")
    resumed = fit(config | goes_on | {"resume_from": str(last)}, rest).lightning_module
    assert rest.seen == whole.seen[-len(rest.seen) :] and len(rest.seen) == {3: 16, 4: 13}[stopped]
    assert_same(expected, resumed)


class Announce(pl.Callback):
    """SLURM's signal amidst a pass, and the job's end when the run has saved itself."""

    def __init__(self, passes: int):
        self.passes, self.count = passes, 0

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.count += 1
        if self.count == self.passes:
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if any(Path(trainer.default_root_dir).glob("hpc_ckpt_*")):
            raise RuntimeError("killed")


@pytest.mark.parametrize("passes, saved", [(9, 11), (12, 12), (13, 14), (15, 16), (9, None)])
def test_what_slurm_announces_amidst_a_pass_is_saved_behind_it(
    passes: int, saved: int | None, configure, monkeypatch, tmp_path: Path
) -> None:
    """saved: the pass behind which it is; None: the guard is off, and it is saved at once."""
    config = configure("dvp_search_bert_vqa", **EPOCHS)
    whole, rest = Watch(), Watch()
    expected = fit(config | {"log_dir": str(tmp_path / "whole")}, whole).lightning_module
    monkeypatch.setattr("pytorch_lightning.trainer.connectors.signal_connector.call", lambda *_, **__: 0)  # scontrol
    for name, value in {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}.items():
        monkeypatch.setenv(name, value)
    if saved is None:
        monkeypatch.setattr(saving, "SLURMEnvironment", SimpleNamespace(detect=lambda: False))
    with pytest.raises(RuntimeError, match="killed"):
        fit(config, Announce(passes))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    resumed = fit(config, rest).lightning_module
    if saved is None:
        with pytest.raises(AssertionError):
            assert_same(expected, resumed)
        return
    assert rest.seen == whole.seen[saved:]
    assert_same(expected, resumed)


# Two processes, and however an update is split


@pytest.fixture
def still(make_language_model) -> dict[str, Any]:
    """Settings of a run without dropout that goes where its gradients point."""
    model = make_language_model("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return {"tokenizer": model, "drop_rate": 0.0, "optim_type": "sgd", "learning_rate": 0.01, "max_steps": None,
            "decay_power": "constant", "warmup_steps": 0}  # fmt: skip


def trained(config: dict[str, Any], split: dict[str, int]) -> dict[str, torch.Tensor]:
    """The weights that a run of an experiment ends with under a split of its updates, in one or two processes."""
    config = config | split | {"devices": split.get("cpu_processes", 1)}
    config["accumulate"] = config["batch_size"] // config["per_gpu_batchsize"] // config["devices"]
    config["log_dir"] += f"_{config['per_gpu_batchsize']}_{config['devices']}"
    if config["devices"] == 2:
        in_two_processes(fit, config)
    else:
        fit(config)
    (last,) = Path(config["log_dir"]).rglob("last.ckpt")
    return read_checkpoint(str(last))[0]


@pytest.mark.two_processes
@pytest.mark.parametrize("by_length", [False, True], ids=["shuffled", "by length"])
def test_an_update_is_the_mean_of_its_rows_however_it_is_split(by_length: bool, configure, still, tmp_path) -> None:
    data = Path(shutil.copytree(configure("dvp_adaption_bert_vqa")["data_root"], tmp_path / "data"))
    write_table(data / "vqav2_trainable_val.arrow", rows_of("vqa", "trainable_val", images=3, questions=3))
    options = {"max_epoch": 2, "batch_size": 8, "data_root": str(data), "bucket_by_length": by_length}
    config = configure("dvp_adaption_bert_vqa", **still | options)  # 17 rows: the last update has one
    whole = trained(config, {"per_gpu_batchsize": 8})
    began = trained(config | {"learning_rate": 0.0, "log_dir": str(tmp_path / "began")}, {"per_gpu_batchsize": 8})
    for split in ({"per_gpu_batchsize": 2}, {"per_gpu_batchsize": 4, "cpu_processes": 2}):
        found = trained(config, split)
        worst = max((whole[name] - found[name]).abs().max().item() for name in whole)
        assert worst < 1e-6 < 1e-3 < max((whole[name] - began[name]).abs().max().item() for name in whole)


@pytest.mark.two_processes
@pytest.mark.parametrize("kind", ADAPTERS)
def test_two_processes_with_adapters_train_as_one(kind: bool | str, configure, still, tmp_path: Path) -> None:
    options = still | {"max_epoch": 1, "batch_size": 8, "learning_rate": 0.1}
    config = configure("dvp_adaption_bert_vqa", **options, use_adapter=kind, insert_layer=1)
    one, two = (trained(config, {"per_gpu_batchsize": 4, "cpu_processes": processes}) for processes in (1, 2))
    began = trained(config | {"learning_rate": 0.0, "log_dir": str(tmp_path / "began")}, {"per_gpu_batchsize": 8})
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-6
    moved = {name for name in one if not torch.equal(one[name], began[name])}
    adapters = {name for name in one if is_adapter(name)}
    assert bool(adapters) == (kind != "frozen")
    assert {name for name in adapters if "lora_A" not in name} <= moved  # which moves when lora_B has


def _fit_and_save(config: dict[str, Any], place: Path, before: dict[int, str]) -> None:
    watch = Watch(place, before)
    module = fit(config, watch).lightning_module
    state = {"seen": watch.seen, "weights": {name: one.detach() for name, one in trained_state(module).items()}}
    torch.save(state | {"trace": module.bandit.trace}, f"{config['log_dir']}_{module.global_rank}.pt")


@pytest.mark.two_processes
def test_two_processes_drop_what_they_would_have_dropped(configure, tmp_path: Path, capsys) -> None:
    options = EPOCHS | {"max_epoch": 2, "batch_size": 4, "per_gpu_batchsize": 2}
    config = configure("dvp_search_bert_vqa", **options, cpu_processes=2) | {"log_dir": str(tmp_path / "whole")}
    in_two_processes(_fit_and_save, config, tmp_path, {0: "end", 3: "within"})
    there = {"resume_from": str(tmp_path / "within.ckpt"), "log_dir": str(tmp_path / "rest")}
    in_two_processes(_fit_and_save, config | there, tmp_path, {})
    found = [[torch.load(tmp_path / f"{run}_{rank}.pt") for rank in (0, 1)] for run in ("whole", "rest")]
    for whole, rest in zip(*found, strict=True):
        assert rest["seen"] == whole["seen"][-2:] and rest["trace"] == whole["trace"]
        assert all(torch.equal(rest["weights"][name], weight) for name, weight in whole["weights"].items())
    streams = TrainedOnly().load_checkpoint(str(tmp_path / "within.ckpt"))["rng"]
    assert len(streams) == 2 and not torch.equal(streams[0]["cpu"], streams[1]["cpu"])

    alone = configure("dvp_search_bert_vqa", **options | {"resume_from": str(tmp_path / "end.ckpt")})
    fit(alone)
    assert "Dropout begins anew: the checkpoint is of 2 process(es), this run of 1." in capsys.readouterr().out
