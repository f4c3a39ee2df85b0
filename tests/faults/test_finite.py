"""Numbers that are not finite end a run before they are used: no such update, no such checkpoint, no such K."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from faults.trials import say
from safetensors.torch import load_file, save_file
from tiny_world import fit, rows_of, write_table
from two_processes import in_two_processes

from dvp.checkpoints import not_finite, trained_state
from dvp.data import columns
from dvp.errors import UserError
from dvp.files import write_checksums
from dvp.module import DVPModule
from dvp.runs import trainer as trainers
from dvp.runs.finite import FILE, GRADIENTS, LOSS, NEVER, Finite

HUGE = {"learning_rate": 1e6, "decay_power": "constant", "warmup_steps": 0, "optim_type": "sgd", "max_steps": None}
SEARCH, ADAPTION = "dvp_search_bert_vqa", "dvp_adaption_bert_vqa"


def weights_of(log_dir: str | Path) -> dict[str, torch.Tensor]:
    """The trained weights of the last checkpoint under a folder; none where there is no checkpoint."""
    return next((load_file(path) for path in Path(log_dir).rglob("last.ckpt/weights.safetensors")), {})


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without the guard."""
    monkeypatch.setattr(trainers, "Finite", pl.Callback)


@pytest.mark.parametrize("experiment", [ADAPTION, SEARCH])
def test_a_rate_far_too_large_is_refused_and_leaves_no_such_weights(experiment: str, refused, tiny) -> None:
    settings = tiny(experiment, **HUGE, max_epoch=6)
    said = refused("with", experiment, **settings)
    assert "not finite" in said and "smaller learning_rate" in said
    for note in Path(settings["log_dir"]).rglob(FILE):
        assert str(note) in said and 0 < len(json.loads(note.read_text())["question_ids"]) <= settings["batch_size"]
    assert FILE in said or "score of arm" in said
    assert not not_finite(weights_of(settings["log_dir"]))
    assert not list(Path(settings["log_dir"]).rglob("search.json"))


def test_without_the_guard_such_weights_are_saved(configure, unguarded) -> None:
    config = configure(ADAPTION, **HUGE, max_epoch=6)
    fit(config)
    assert not_finite(weights_of(config["log_dir"]))


@pytest.mark.parametrize("guarded", [True, False])
def test_a_search_that_was_ended_tells_no_k(
    guarded: bool, command, refused, tiny, arm_one_is_better, monkeypatch
) -> None:
    settings = tiny(SEARCH, **HUGE, max_epoch=6, search_warmup_steps=1000)
    rest = tiny(ADAPTION, insert_layer="auto")
    if not guarded:
        monkeypatch.setattr(trainers, "Finite", pl.Callback)
        command("with", SEARCH, **settings)
        command("with", ADAPTION, **rest)
        return
    assert FILE in refused("with", SEARCH, **settings)
    assert "found no search" in refused("with", ADAPTION, **rest)
    for last in Path(settings["log_dir"]).rglob("last.ckpt"):
        assert "of a search that has not ended" in refused("with", ADAPTION, **rest, load_path=last)


def test_a_rate_of_1e30_is_refused_by_name(refused, tiny) -> None:
    settings = tiny(ADAPTION, learning_rate=1e30)
    assert "learning_rate=1e+30 is wrong" in refused("with", ADAPTION, **settings)
    assert not Path(settings["log_dir"]).exists()


class Spoil(pl.Callback):
    """Makes what a run meets in its fourth update infinite or no number, and keeps the weights of before."""

    def __init__(self, what: str, value: float):
        self.what, self.value, self.before = what, value, {}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: dict[str, Any], batch_idx: int) -> None:
        if trainer.global_step == 3 and not self.before:
            self.before = {name: one.detach().clone() for name, one in trained_state(pl_module).items()}
            self.asked = batch["question_id"]
            if self.what == "loss":
                batch["targets"][0, 0] = self.value
            if self.what == "weight":
                with torch.no_grad():
                    pl_module.model.head.answer.bias[0] = self.value

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.global_step == 3 and self.what == "gradient":
            pl_module.model.head.answer.bias.grad[0] = self.value


@pytest.mark.parametrize("what", ["loss", "gradient", "weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_update_is_not_made_and_its_questions_are_told(what: str, value: float, configure) -> None:
    config, spoil = configure(ADAPTION, max_steps=None, max_epoch=3), Spoil(what, value)
    modules = []
    callback = pl.Callback()
    callback.on_exception = lambda trainer, module, error: modules.append(module)
    with pytest.raises(UserError, match="not finite in update 4"):
        fit(config, spoil, callback)
    (note,) = Path(config["log_dir"]).rglob(FILE)
    told = json.loads(note.read_text())
    assert told["update"] == 4 and told["question_ids"][: len(spoil.asked)] == spoil.asked
    after = {name: one for name, one in trained_state(modules[0]).items() if what != "weight" or "answer" not in name}
    assert all(torch.equal(one, spoil.before[name]) for name, one in after.items())
    assert not not_finite(weights_of(config["log_dir"]))


# Two processes, one of which has such numbers in its data


def spoil_second(settings: dict[str, Any], place: Path, guarded: bool) -> None:
    """Train where the fourth update's questions of rank 1 have a target that is no number; note how that ends."""
    before = DVPModule.training_step

    def training_step(self: DVPModule, batch: dict[str, Any], *rest: Any) -> Any:
        if self.global_rank == 1 and self.trainer.global_step == 3:
            batch["targets"][0, 0] = math.nan
            (place / "asked.json").write_text(json.dumps(batch["question_id"]))
        return before(self, batch, *rest)

    DVPModule.training_step = training_step
    if not guarded:
        trainers.Finite = pl.Callback
    try:
        say("with", ADAPTION, *(f"{key}={value}" for key, value in settings.items()))
        code = 0
    except SystemExit as end:
        code = end.code
    (place / f"code{os.environ['RANK']}").write_text(str(code))


@pytest.mark.two_processes
@pytest.mark.parametrize("guarded", [True, False])
def test_of_two_processes_both_stop_and_the_questions_are_told(guarded: bool, tiny, tmp_path: Path) -> None:
    settings = tiny(ADAPTION, max_steps=None, max_epoch=3, per_gpu_batchsize=2, cpu_processes=2)
    in_two_processes(spoil_second, settings, tmp_path, guarded)
    asked = json.loads((tmp_path / "asked.json").read_text())
    notes = list(Path(settings["log_dir"]).rglob(FILE))
    assert [(tmp_path / f"code{rank}").read_text() == "0" for rank in (0, 1)] == [not guarded, not guarded]
    if not guarded:
        assert not notes and not_finite(weights_of(settings["log_dir"]))
        return
    told = json.loads(notes[0].read_text())
    assert told["update"] == 4 and set(asked) < set(told["question_ids"])
    assert not not_finite(weights_of(settings["log_dir"]))


class Read(Finite):
    """The guard as on a GPU: notes are read now and then, and fused optimisers leave the update out."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self.every = 10

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        optimizer.found_inf = self._found.float()


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_read_late_the_update_and_those_behind_it_are_left_out_on_the_device(what, configure, monkeypatch) -> None:
    monkeypatch.setattr(trainers, "Finite", Read)
    config, spoil = configure(ADAPTION, max_steps=None, max_epoch=8), Spoil(what, math.inf)
    modules = []
    callback = pl.Callback()
    callback.on_exception = lambda trainer, module, error: modules.append((trainer.global_step, module))
    with pytest.raises(UserError, match="not finite in update 4"):
        fit(config | {"val_check_interval": 1.0}, spoil, callback)
    ((step, module),) = modules
    assert step >= 4 and all(torch.equal(one, spoil.before[name]) for name, one in trained_state(module).items())


def test_a_guarded_run_is_the_unguarded_one_to_the_bit(configure, monkeypatch, tmp_path: Path) -> None:
    config = configure(SEARCH, max_steps=6)
    guarded = trained_state(fit(config).lightning_module)
    monkeypatch.setattr(trainers, "Finite", pl.Callback)
    plain = trained_state(fit(config | {"log_dir": str(tmp_path / "plain")}).lightning_module)
    assert all(torch.equal(one, plain[name]) for name, one in guarded.items())


class Scaler:
    """A GradScaler's scale."""

    def __init__(self, scale: float):
        self.size = scale

    def scale(self, value: torch.Tensor) -> torch.Tensor:
        return self.size * value


@pytest.mark.parametrize("scale, noted", [(65536.0, False), (1.0, True)])
def test_a_scaler_may_skip_what_only_its_scale_made_infinite(scale: float, noted: bool) -> None:
    guard, weight = Finite(), torch.nn.Parameter(torch.ones(2))
    module = type("Module", (), {"device": torch.device("cpu")})()
    plugin = type("Plugin", (), {"scaler": Scaler(scale)})()
    trainer = type("Trainer", (), {"precision_plugin": plugin, "global_step": 4, "log_every_n_steps": 10})()
    guard.on_train_start(trainer, module)
    guard.every = 10
    weight.grad = torch.tensor([1.0, math.inf])
    guard.on_before_optimizer_step(trainer, module, torch.optim.SGD([weight], 0.1))
    assert guard.first.tolist() == [NEVER, 5 if noted else NEVER] and (LOSS, GRADIENTS) == (0, 1)


# Checkpoints that hold such numbers


@pytest.fixture
def trained(configure) -> tuple[dict[str, Any], Path]:
    config = configure(ADAPTION, max_steps=1)
    fit(config)
    return config, next(Path(config["log_dir"]).rglob("last.ckpt"))


@pytest.mark.parametrize("way", ["load_path", "resume_from"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_such_weights_are_refused_by_the_name_of_the_tensor(way: str, value: float, trained) -> None:
    config, last = trained
    spoil(last / "weights.safetensors", "model.head.answer.weight", value)
    with pytest.raises(UserError, match="not finite.*model.head.answer.weight"):
        fit(config | {way: str(last), "max_steps": 2})


def test_such_moments_are_refused_by_the_name_of_the_tensor(trained) -> None:
    config, last = trained
    spoil_moments(last)
    with pytest.raises(UserError, match="not finite.*exp_avg.* of "):
        fit(config | {"resume_from": str(last), "max_steps": 2})


@pytest.mark.parametrize("way", ["load_path", "resume_from", "moments", "a score of a table"])
def test_without_the_guard_such_numbers_are_trained_on(way: str, trained, unguarded, monkeypatch, tmp_path) -> None:
    config, last = trained
    if way == "a score of a table":
        rows = rows_of("vqa", "train")
        rows[0]["answer_scores"][0] = [math.nan]
        config["data_root"] = str(shutil.copytree(config["data_root"], tmp_path / "data"))
        write_table(tmp_path / "data" / "vqav2_train.arrow", rows)
        monkeypatch.setattr(columns, "RANGES", {})
        last = None
    elif way == "moments":
        spoil_moments(last)
    else:
        spoil(last / "weights.safetensors", "model.head.answer.weight", math.nan)
    monkeypatch.setattr("dvp.checkpoints.weights.not_finite", lambda tensors: [])
    key = "load_path" if way == "load_path" else "resume_from"
    fit(config | {key: last and str(last), "max_steps": 2, "log_dir": str(tmp_path / "again")})
    assert not_finite(weights_of(tmp_path / "again"))


def spoil_moments(last: Path) -> None:
    """Put a value that is no number into what the optimiser of a checkpoint remembers of a matrix."""
    tensors = load_file(last / "training.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2 and tensor.is_floating_point())
    spoil(last / "training.safetensors", name, math.nan)


def spoil(file: Path, name: str, value: float) -> None:
    """Put a value into a tensor of a file of a checkpoint."""
    tensors = load_file(file)
    tensors[name].view(-1)[0] = value
    save_file(tensors, file)
    write_checksums(file.parent)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_score_that_is_no_number_ends_a_search(guarded: bool, configure, monkeypatch) -> None:
    config = configure(SEARCH, max_steps=1)
    monkeypatch.setattr("dvp.module.DVPModule.score_arms", lambda self, batch, arms: torch.full((len(arms),), math.nan))
    if guarded:
        with pytest.raises(UserError, match="score of arm.* is not finite"):
            fit(config)
        assert not list(Path(config["log_dir"]).rglob("search.json"))
    else:
        monkeypatch.setattr("dvp.search.rule.math.isfinite", lambda score: True)
        with pytest.raises(ValueError):  # nothing of it can be drawn, but K is written down
            fit(config)
        (record,) = Path(config["log_dir"]).rglob("search.json")
        assert json.loads(record.read_text())["finished"] and "NaN" in record.read_text()
