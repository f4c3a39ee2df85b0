"""The published commands, end to end, on tiny models and data; and the input that stops them."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny_world import PUBLISHED, SPLITS, fit, rows_of, write_table
from two_processes import in_two_processes

from dvp.build import build_data
from dvp.checkpoints import read_checkpoint, trained_state
from dvp.config import EXPERIMENTS
from dvp.module import DVPModule
from dvp.tasks import TASKS

ROOT = Path(__file__).parents[1]
METRICS = {task: {f"{task}/{split}/{TASKS[task].metric}" for split in TASKS[task].validate} for task in SPLITS}
PICK = {task: f"{task}/{TASKS[task].pick}/{TASKS[task].metric}" for task in SPLITS}
PICK_AS_PUBLISHED = PICK | {"gqa": "gqa/test-dev/accuracy", "snli_ve": "snli_ve/dev+test/accuracy"}


def parts(experiment: str) -> tuple[str, str, str]:
    """Stage, family and task of an experiment."""
    _, stage, family, task = experiment.split("_", 3)
    return stage, family, task


def run_folder(settings: dict, experiment: str, version: int = 0) -> Path:
    return Path(settings["log_dir"]) / f"{experiment}_seed0" / f"version_{version}"


def log(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in log(folder) if row.get(name)]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_run_here_or_by_tests_of_its_own(task: str) -> None:
    tests = ROOT / "tests"
    own = [*tests.glob(f"{task}/test_*.py"), tests / "kinds" / f"test_{TASKS[task].kind}.py"]
    runs = [path for path in own if path.is_file() and 'command("with"' in path.read_text(encoding="utf-8")]
    assert task in SPLITS or runs, f"tiny_world makes no tables of {task}, and none of {own} runs a command"


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if parts(name)[2] in METRICS])
def test_every_experiment_runs(experiment: str, command, tiny, capsys: pytest.CaptureFixture) -> None:
    stage, family, task = parts(experiment)
    settings = tiny(experiment, search_sample=4) | ({} if stage == "search" else {"insert_layer": 1})
    command("with", experiment, **settings)
    folder = run_folder(settings, experiment)
    assert f"{PICK[task]} picks the checkpoint" in capsys.readouterr().out
    assert METRICS[task] <= set(log(folder)[0])
    assert all(0 <= value <= 100 for name in METRICS[task] for value in column(folder, name))
    assert list(folder.glob("events.out.tfevents*"))
    weights, description = read_checkpoint(str(folder / "checkpoints" / "last.ckpt"))
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert description["insert_layer"] == (None if stage == "search" else 1)
    if stage == "search":
        search = json.loads((folder / "search.json").read_text(encoding="utf-8"))
        assert search["finished"] and search["config"]["exp_name"] == experiment
        assert [len(update["arms"]) for update in search["trace"]] == [4, 4]  # one update of the bandit per update
        assert sum(search["counts"]) == 8
        assert search["insert_layer"] == max(range(3), key=search["preferences"].__getitem__)


@pytest.mark.parametrize(
    "experiment", [name for name in EXPERIMENTS if parts(name)[0] == "adaption" and parts(name)[2] in METRICS]
)
def test_a_checkpoint_answers_the_test_questions(experiment: str, command, tiny, capsys) -> None:
    _, _, task = parts(experiment)
    settings = tiny(experiment, insert_layer=1, max_steps=1, per_gpu_batchsize=4, batch_size=4)
    command("with", experiment, **settings)
    checkpoint = run_folder(settings, experiment) / "checkpoints" / "last.ckpt"
    capsys.readouterr()
    uneven = {"per_gpu_batchsize": 3, "batch_size": 3, "precision": 32}  # the last batch is short
    command("with", experiment, **settings | uneven, test_only=True, load_path=checkpoint)
    out = Path(settings["log_dir"]) / f"{task}_submit_last.json"
    if not TASKS[task].submission:
        printed = capsys.readouterr().out
        assert all(f"{task}/{split}/{TASKS[task].metric}" in printed for split in TASKS[task].test)
        assert not out.exists()
        return
    id_name, answer_name = TASKS[task].submission
    asked = [question for row in rows_of(task, TASKS[task].test[0]) for question in row["question_id"]]
    answers = json.loads(out.read_text(encoding="utf-8"))
    assert [row[id_name] for row in answers] == sorted(asked)
    assert {row[answer_name] for row in answers} <= set(read_checkpoint(str(checkpoint))[1]["answers"])
    about = json.loads(out.with_suffix(".about.json").read_text(encoding="utf-8"))
    assert about["config"]["load_path"] == str(checkpoint) and about["as_published"] is False


def test_the_test_dev_questions_can_be_asked_alone(command, tiny) -> None:
    settings = tiny("dvp_adaption_bert_vqa", max_steps=1)
    command("with", "dvp_adaption_bert_vqa", **settings)
    last = run_folder(settings, "dvp_adaption_bert_vqa") / "checkpoints" / "last.ckpt"
    command("with", "dvp_adaption_bert_vqa", **settings, test_only=True, load_path=last, test_split="test-dev")
    answers = json.loads((Path(settings["log_dir"]) / "vqa_submit_last.json").read_text(encoding="utf-8"))
    asked = {question for row in rows_of("vqa", "test-dev") for question in row["question_id"]}
    assert {row["question_id"] for row in answers} == asked


def test_a_question_asked_twice_is_not_answered(command, refused, tiny, data_root: str, tmp_path: Path) -> None:
    settings = tiny("dvp_adaption_bert_vqa", max_steps=1)
    command("with", "dvp_adaption_bert_vqa", **settings)
    last = run_folder(settings, "dvp_adaption_bert_vqa") / "checkpoints" / "last.ckpt"
    folder = shutil.copytree(data_root, tmp_path / "data")
    rows = rows_of("vqa", "test")
    write_table(folder / "vqav2_test.arrow", [*rows, rows[0]])
    asked = {"test_only": True, "load_path": last, "data_root": folder}
    assert "twice" in refused("with", "dvp_adaption_bert_vqa", **settings | asked)
    assert not list(Path(settings["log_dir"]).glob("*submit*"))


def test_the_published_protocol_picks_by_the_published_splits(command, tiny, capsys) -> None:
    for task in PUBLISHED:
        experiment = f"dvp_search_bert_{task}"
        settings = tiny(experiment, as_published=True)
        command("with", experiment, **settings)
        assert f"{PICK_AS_PUBLISHED[task]} picks the checkpoint" in capsys.readouterr().out
        assert METRICS[task] | {PICK_AS_PUBLISHED[task]} <= set(log(run_folder(settings, experiment))[0])
        search = json.loads((run_folder(settings, experiment) / "search.json").read_text(encoding="utf-8"))
        assert search["as_published"] is True


def test_an_adaption_takes_the_layer_of_the_newest_search(command, refused, tiny, capsys) -> None:
    settings = tiny("dvp_search_bert_gqa")
    auto = settings | {"insert_layer": "auto"}
    assert "dvp_search_bert_gqa" in refused("with", "dvp_adaption_bert_gqa", **auto)  # the command to run first
    for seed in (0, 1):
        command("with", "dvp_search_bert_gqa", **settings, seed=seed)
    assert "undecided" in capsys.readouterr().out
    assert "is undecided" in refused("with", "dvp_adaption_bert_gqa", **auto)  # two updates tell nothing
    path = Path(settings["log_dir"]) / "dvp_search_bert_gqa_seed1/version_0/search.json"
    newest = json.loads(path.read_text())
    path.write_text(json.dumps(newest | {"found": True, "verdict": "K is there"}))
    capsys.readouterr()
    command("with", "dvp_adaption_bert_gqa", **auto)
    assert f"K = {newest['insert_layer']}, from" in capsys.readouterr().out
    last = run_folder(settings, "dvp_adaption_bert_gqa") / "checkpoints" / "last.ckpt"
    assert read_checkpoint(str(last))[1]["insert_layer"] == newest["insert_layer"]
    assert "dvp_search_bert_vqa" in refused("with", "dvp_adaption_bert_vqa", **auto)


def arm_two_is_better(monkeypatch: pytest.MonkeyPatch | None = None, shift: float = 0.0) -> None:
    """Scores of arms from now on: 50, but 90 + shift for arm 2 and 70 - shift for arm 1, and some noise for all."""
    noise = torch.Generator().manual_seed(0)

    def score_arms(module: DVPModule, batch: dict, arms: list[int]) -> torch.Tensor:
        means = torch.tensor([50.0, 70.0 - shift, 90.0 + shift])
        return means[arms] + torch.randn(len(arms), generator=noise)

    (monkeypatch.setattr if monkeypatch else setattr)(DVPModule, "score_arms", score_arms)


@pytest.mark.parametrize("max_steps, finished, updates", [(200, True, 90), (60, True, 60), (200, False, 40)])
def test_a_search_by_the_mean_stops_when_it_is_decided(
    max_steps: int, finished: bool, updates: int, configure, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    arm_two_is_better(monkeypatch)
    config = configure("dvp_search_bert_vqa", kab="mean", max_steps=max_steps)
    trainer = fit(config, *([] if finished else [StopAt(updates)]))
    assert trainer.global_step == updates
    assert len(trainer.lightning_module.bandit.trace) == updates // 2
    (path,) = Path(config["log_dir"]).rglob("search.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert (found["finished"], found["updates"], found["insert_layer"]) == (finished, updates, 2)
    assert found["decided"] == found["found"] == (updates == 90)
    assert found["verdict"] in capsys.readouterr().out
    assert "<svg" in path.with_name("search.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "own, other, words",
    [
        (85.0, 40.0, "as good as each other, none is 3 points behind .*, and score 85.0 .* and 40.0 with others"),
        (25.0, 25.0, "still answer like a blind model, they score 25.0 .* and 25.0 with others"),
    ],
)
def test_a_search_asks_with_other_pictures_whether_its_arms_see(
    own: float, other: float, words: str, configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.Tensor] = []

    def score_arms(module: DVPModule, batch: dict, arms: list[int]) -> torch.Tensor:
        asked.append(batch["pixel_values"])
        if len(arms) == 1:
            assert torch.equal(asked[-1], asked[-2].roll(1, 0))
        return torch.full((len(arms),), other if len(arms) == 1 else own)

    monkeypatch.setattr(DVPModule, "score_arms", score_arms)
    config = configure("dvp_search_bert_vqa", kab="mean", max_steps=80, image_tokens="live")
    fit(config)
    (path,) = Path(config["log_dir"]).rglob("search.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert re.search(words, found["verdict"])
    assert [number for number, entry in enumerate(found["trace"], 1) if "blind" in entry] == list(range(5, 41, 5))


def test_a_batch_of_one_has_no_other_picture(configure) -> None:
    config = configure("dvp_search_bert_vqa", kab="mean", max_steps=10, batch_size=2, per_gpu_batchsize=2)
    trace = fit(config).lightning_module.bandit.trace
    assert len(trace) == 5 and not any("blind" in entry for entry in trace)


class StopAt(pl.Callback):
    """Ends the run early, as a limit of time does."""

    def __init__(self, updates: int):
        self.updates = updates

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop |= trainer.global_step >= self.updates


@pytest.mark.parametrize("processes, rows", [(1, 4), (2, 2)])
def test_arms_are_scored_on_half_a_batch_over_all_devices(processes: int, rows: int, configure) -> None:
    config = configure("dvp_search_bert_vqa", cpu_processes=processes, per_gpu_batchsize=2)
    assert build_data(config).search_batch_size == rows


def test_scores_wait_for_the_warm_up(configure) -> None:
    module = fit(configure("dvp_search_bert_vqa", max_steps=4, search_warmup_steps=3)).lightning_module
    assert len(module.bandit.trace) == 1


@pytest.mark.parametrize("per_gpu_batchsize", [8, 4, 2])
def test_schedules_count_updates_whatever_the_accumulation(per_gpu_batchsize: int, configure) -> None:
    # 16 training questions, 8 an update: 2 updates an epoch, 8 in all, the first 4 of them warm-up
    config = configure("dvp_adaption_bert_vqa", per_gpu_batchsize=per_gpu_batchsize, max_steps=None, max_epoch=4,
                       warmup_steps=0.5, learning_rate=1e-3)  # fmt: skip
    trainer = fit(config | {"log_dir": config["log_dir"] + str(per_gpu_batchsize)})
    assert (trainer.global_step, trainer.accumulate_grad_batches) == (8, 8 // per_gpu_batchsize)
    optimizer, schedule = trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler
    rates = [schedule.lr_lambdas[0](step) for step in range(9)]
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0])
    assert schedule.last_epoch == 8
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


def test_a_run_has_a_rate_per_update_in_its_log(command, tiny) -> None:
    settings = tiny("dvp_adaption_bert_vqa", max_steps=20, warmup_steps=10)
    command("with", "dvp_adaption_bert_vqa", **settings)
    rates = column(run_folder(settings, "dvp_adaption_bert_vqa"), "lr-AdamW/pg1")
    assert sorted(set(rates)) == pytest.approx([1e-4 / 10, 1e-4 * 9 / 10])  # in updates 10 and 20


def test_a_dry_run_leaves_no_result(command, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = tiny("dvp_search_bert_vqa", fast_dev_run=True)
    command("with", "dvp_search_bert_vqa", **settings)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".ckpt" or path.name == "search.json"]


# Bad input


def _file(path: Path) -> Path:
    path.write_text("in the way")
    return path


def _without_weights(settings: dict, place: Path) -> Path:
    folder = Path(shutil.copytree(settings["tokenizer"], place / "model"))
    (folder / "model.safetensors").unlink()
    return folder


def _without_table(settings: dict, place: Path) -> Path:
    folder = Path(shutil.copytree(settings["data_root"], place / "data"))
    (folder / "vqav2_trainable_val.arrow").unlink()
    return folder


BAD: dict[str, tuple[Callable[[dict, Path], dict[str, Any]], str]] = {
    "no data": (lambda s, place: {"data_root": ""}, "data_root"),
    "no table": (lambda s, place: {"data_root": _without_table(s, place)}, "vqav2_trainable_val.arrow is missing"),
    "no K": (lambda s, place: {"insert_layer": 3}, "layers 0 to 2"),
    "too many gpus": (lambda s, place: {"num_gpus": 99, "batch_size": 396}, "num_gpus=99 but this machine has"),
    "no checkpoint": (lambda s, place: {"load_path": place / "none.ckpt"}, "none.ckpt"),
    "not a checkpoint": (lambda s, place: {"load_path": _file(place / "a.ckpt")}, "a.ckpt"),
    "nothing to resume": (lambda s, place: {"resume_from": place / "none.ckpt"}, "none.ckpt"),
    "nothing to test": (lambda s, place: {"test_only": True}, "load_path"),
    "no weights": (lambda s, place: {"tokenizer": _without_weights(s, place)}, "holds no weights"),
    "no network": (lambda s, place: {"tokenizer": "bert-base-nowhere"}, "copy its folder"),
    "no clip": (lambda s, place: {"clip_model": place / "nowhere"}, "nowhere"),
    "another size": (lambda s, place: {"image_size": 32}, "takes 16 pixels"),
    "another family": (lambda s, place: {"language_model": "T5"}, "holds a BERT model"),
    "heads": (lambda s, place: {"num_heads": 5}, "num_heads=5 does not divide"),
    "result in the way": (lambda s, place: {"log_dir": _file(place / "file")}, "choose another log_dir"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_refused_and_nothing_written(fault: str, refused, tiny, tmp_path: Path) -> None:
    settings = tiny("dvp_adaption_bert_vqa")
    spoil, message = BAD[fault]
    sentence = refused("with", "dvp_adaption_bert_vqa", **settings | spoil(settings, tmp_path))
    assert message in sentence
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".safetensors", ".tmp") and "model" not in path.parts]  # fmt: skip  # noqa: E501


def test_a_mistake_ends_the_process_with_a_code_and_one_sentence() -> None:
    words = ["with", "dvp_search_bert_vqa", "per_gpu_batch=4"]
    ended = subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode != 0
    assert "did you mean per_gpu_batchsize?" in ended.stderr
    assert "Traceback" not in ended.stderr


# Several processes


def _train_as_rank(configs: list[dict], out: Path) -> None:
    rank = int(os.environ["RANK"])
    for number, config in enumerate(configs):
        if config["kab"] == "mean":  # each rank scores in its own way, and finds another arm the best
            arm_two_is_better(shift=rank * -50.0)
        module = fit(config).lightning_module
        state = {name: parameter.detach() for name, parameter in trained_state(module).items()}
        if config["kab"] == "mean":
            state |= {"scores": torch.tensor([entry["scores"] for entry in module.bandit.trace])}
        elif module.bandit:
            state |= {"preferences": module.bandit.preferences, "counts": module.bandit.counts}
        torch.save(state, out / f"{number}_{rank}.pt")


@pytest.mark.two_processes
def test_two_processes_end_with_equal_weights_and_preferences(configure, data_root, tmp_path: Path) -> None:
    uneven = Path(shutil.copytree(data_root, tmp_path / "data"))
    write_table(uneven / "vqav2_rest_val.arrow", rows_of("vqa", "rest_val", images=3, questions=3))  # 9: 5 and 4
    options = {
        "cpu_processes": 2,
        "per_gpu_batchsize": 1,
        "batch_size": 8,
        "data_root": str(uneven),
        "max_steps": 8,
        "learning_rate": 1e-3,
    }
    configs = [configure(name, **options) for name in ("dvp_search_llama_vqa", "dvp_adaption_bert_vqa")]
    mean = options | {"batch_size": 2, "max_steps": 200}
    configs.append(configure("dvp_search_bert_vqa", kab="mean", **mean))
    in_two_processes(_train_as_rank, configs, tmp_path)
    assert [path.name for path in Path(configs[0]["log_dir"]).glob("*/*")] == ["version_0"] * len(configs)
    for number in range(len(configs)):
        first, second = (torch.load(tmp_path / f"{number}_{rank}.pt") for rank in (0, 1))
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            torch.testing.assert_close(tensor, second[name], rtol=0, atol=0, msg=name)
    search = torch.load(tmp_path / "0_0.pt")
    assert search["counts"].sum() == 8 * 10
    assert search["preferences"].abs().sum() > 0
    scores = torch.load(tmp_path / "2_0.pt")["scores"]
    assert len(scores) == 45  # both stopped after 90 updates
    # The mean of both ranks' scores; in the last of five batches, which is one row, only the first rank has any.
    assert scores.mean(0).tolist() == pytest.approx([50, 90, 70], abs=1)


@pytest.mark.two_processes
def test_run_starts_its_processes_itself(tiny, tmp_path: Path) -> None:
    settings = tiny("dvp_search_bert_vqa", cpu_processes=2, max_steps=2)
    words = ["with", "dvp_search_bert_vqa", *(f"{key}={value}" for key, value in settings.items())]
    ended = subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    search = json.loads((run_folder(settings, "dvp_search_bert_vqa") / "search.json").read_text(encoding="utf-8"))
    assert search["world_size"] == 2
    (folder,) = run_folder(settings, "dvp_search_bert_vqa").parent.iterdir()  # one for both, and of the first's choice
    assert {"metrics.csv", "checkpoints", "search.json", "claim.json"} <= {path.name for path in folder.iterdir()}
    assert [path.name for path in (Path(settings["log_dir"]) / "sacred").iterdir() if path.name.isdigit()] == ["1"]


# Real data


@pytest.mark.parametrize("task", PUBLISHED)
def test_bert_runs_on_the_real_data(task: str, command, tiny, real_data, make_language_model, tmp_path: Path) -> None:
    words = real_data() / "tokenizers" / "bert-base-uncased" / "vocab.txt"
    size = len(words.read_text(encoding="utf-8").splitlines())
    folder = Path(make_language_model("bert", vocab_size=size))
    shutil.copy(words, folder)
    settings = {"tokenizer": folder, "data_root": real_data() / "ref_arrow"}
    for stage in ("search", "adaption"):
        experiment = f"dvp_{stage}_bert_{task}"
        command("with", experiment, **tiny(experiment, max_steps=None, max_epoch=1) | settings)
        assert METRICS[task] <= set(log(run_folder(tiny(experiment), experiment))[0])
