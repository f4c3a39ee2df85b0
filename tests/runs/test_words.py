"""What a run says: at its start, on its way, at its end, and what to type next; and where else its metrics go."""

import csv
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from faults.trials import forked, say
from pytorch_lightning.loggers import CSVLogger
from safetensors.torch import load_file, save_file

from dvp.commands.next import what_next
from dvp.config import ex
from dvp.runs import progress
from dvp.search import Verdict

ROOT = Path(__file__).parents[2]
SEARCH, ADAPTION = "dvp_search_bert_gqa", "dvp_adaption_bert_gqa"
FOUR = {"batch_size": 2, "per_gpu_batchsize": 2}  # updates an epoch, of one pass each
# What nobody can act on.
NOISE = (
    "Changed type",
    "INFO",
    "TPU",
    "litlogger",
    "FLOPs",
    "Tip:",
    "HINT",
    "Seed set",
    " 0 of ",
    "\r",
    "\x1b",
    "warn",
)


def words_of(settings: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def metrics(settings: dict[str, Any], experiment: str, name: str) -> list[float]:
    (path,) = Path(settings["log_dir"]).glob(f"{experiment}_seed0/version_0/metrics.csv")
    with open(path, encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_a_run_into_a_pipe_says_what_can_be_acted_on_and_no_more(tiny: Callable[..., dict], tmp_path: Path) -> None:
    settings = tiny(ADAPTION, max_steps=None, max_epoch=6, insert_layer=1, image_tokens="auto", **FOUR)
    settings["tokenizer"] = shutil.copytree(settings["tokenizer"], tmp_path / "bert")
    weights = load_file(tmp_path / "bert" / "model.safetensors")  # public folders hold a head, too, that is not used
    save_file(
        weights | {"cls.predictions.bias": torch.zeros(3)}, tmp_path / "bert" / "model.safetensors", {"format": "pt"}
    )
    command = [sys.executable, "run.py", "with", ADAPTION, *words_of(settings)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert [noise for noise in NOISE if noise in ended.stdout + ended.stderr] == []
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert f"train at K = 1 of 3 layers of {settings['tokenizer']}" in lines[0]
    assert len([line for line in lines if re.match(r"epoch \d+, update \d+ of 24: .*left$", line)]) == 6  # one an epoch
    assert [line.split() for line in lines if line.startswith("loss of")] == [
        "loss of the training rows accuracy in percent: a test-dev, b val".split()
    ]
    takes = r"updates/s: about 0:00:\d\d for the 13 that are left.*GB of memory"
    assert len([line for line in lines if re.search(takes, line)]) == 1
    assert len(lines) < 30
    folder = f"{settings['log_dir']}/{ADAPTION}_seed0/version_0"
    (kept,) = [line.partition(f"In {folder}: ")[2].split(", ")[:3] for line in lines if f"In {folder}: " in line]
    assert kept[0].startswith("checkpoints/epoch=") and kept[1:] == ["checkpoints/last.ckpt", "metrics.csv"]
    assert all((Path(folder) / name).exists() for name in kept) and "Next:" in lines


def test_a_run_on_a_terminal_has_bars(tiny: Callable[..., dict]) -> None:
    settings = tiny(ADAPTION, insert_layer=1)
    ours, theirs = pty.openpty()
    shown = b""

    def read() -> None:
        nonlocal shown
        while True:
            try:
                part = os.read(ours, 1000)
            except OSError:  # it has ended
                return
            if not part:
                return
            shown += part

    reader = threading.Thread(target=read)
    reader.start()
    assert forked(lambda: say("with", ADAPTION, *words_of(settings)), Path(os.ttyname(theirs))) == 0
    os.close(theirs)
    reader.join(timeout=10)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert "Epoch 0 " in text and "━" in text and "val/accuracy" in text
    assert "epoch 0, update" not in text and "v_num" not in text and "TPU" not in text


def test_what_is_frozen_and_trained_is_counted(configure: Callable[..., dict], capsys: pytest.CaptureFixture) -> None:
    from dvp.build import build
    from dvp.runs.trainer import build_trainer
    from dvp.runs.words import start_lines

    config = configure("dvp_search_bert_gqa", use_adapter=True)
    data, module = build(config)
    told = start_lines(config, data, module, build_trainer(config, module.monitor))
    counts = [int(count.replace(",", "")) for count in re.findall(r"(?:model|compressors|head|encoder) ([\d,]+)", told)]
    trained = sum(one.numel() for one in module.parameters() if one.requires_grad)
    frozen = sum(one.numel() for one in module.model.vision.parameters())
    assert sum(counts) == trained + frozen
    assert "search K (published) over 3 layers" in told and "gqa/val/accuracy picks the checkpoint" in told


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"use_adapter": "lora", "adapter_rank": 31}, ""),
        ({"use_adapter": "lora", "adapter_rank": 32}, "adapter_rank=32 is not below 32, the width of"),
        ({"use_adapter": "dora", "adapter_rank": 99}, "adapter_rank=99 is not below 32, the width of"),
        ({"use_adapter": True, "adapter_rank": 99}, ""),  # which has none
        ({"prompt_tokens": 16}, ""),
        ({"prompt_tokens": 17}, "prompt_tokens=17 outnumber the text's 16 tokens: every"),
        ({"prompt_tokens": 999}, "the text's 16 tokens and the language model's 512 positions: every"),
    ],
)
def test_a_size_that_can_hardly_be_meant_is_noted(changes: dict, said: str, configure: Callable[..., dict]) -> None:
    from dvp.build import build
    from dvp.runs.trainer import build_trainer
    from dvp.runs.words import start_lines

    config = configure(ADAPTION, insert_layer=1, **changes)
    data, module = build(config)
    told = start_lines(config, data, module, build_trainer(config, module.monitor))
    notes = [line for line in told.splitlines() if line.startswith("  note ")]
    assert len(notes) == bool(said) and said in "".join(notes)


def test_metrics_and_what_is_said_are_percent(command, tiny, capsys: pytest.CaptureFixture) -> None:
    settings = tiny(ADAPTION, max_steps=1, insert_layer=1)
    command("with", ADAPTION, **settings)
    (score,) = metrics(settings, ADAPTION, "gqa/val/accuracy")  # 1 update, within the first epoch
    rows = score * 8 / 100  # of 8 questions
    assert score > 1 and rows == pytest.approx(round(rows))
    assert f"Best gqa/val/accuracy: {score:.2f} %" in capsys.readouterr().out
    best = next(Path(settings["log_dir"]).rglob("epoch*.ckpt"))
    command("with", ADAPTION, **settings, test_only=True, load_path=best)
    assert re.search(
        r"\ngqa/test-dev/accuracy [01]\.\d{4} = \d+\.\d\d %\nThe test at K = 1 took", capsys.readouterr().out
    )


@pytest.mark.parametrize("updates, validations", [(3, 1), (4, 1), (5, 2), (8, 2)])
def test_max_steps_within_an_epoch_validates_at_its_end(updates: int, validations: int, command, tiny) -> None:
    settings = tiny(ADAPTION, max_steps=updates, insert_layer=1, **FOUR)
    command("with", ADAPTION, **settings)
    assert len(metrics(settings, ADAPTION, "gqa/val/accuracy")) == validations


# The command to type next


def next_commands(printed: str) -> list[list[str]]:
    """The words after `python run.py` of the commands that a run ended with."""
    *_, lines = re.split(r"Next.*:\n", printed)
    lines = lines.strip().splitlines()
    return [shlex.split(line.strip().removeprefix("python run.py ")) for line in lines]


def test_from_a_search_to_answers_by_what_is_printed_alone(command, tiny, capsys, monkeypatch) -> None:
    from dvp.search import KArmedBandit

    settings = tiny(SEARCH)
    command("with", SEARCH, **settings)
    out = capsys.readouterr().out
    assert "Next, at least twice as long in all:" in out
    (longer,) = next_commands(out)  # two updates tell nothing
    assert [word for word in longer if "resume_from" in word or "max_steps" in word] == [
        "max_steps=4", f"resume_from={settings['log_dir']}/{SEARCH}_seed0/version_0/checkpoints/last.ckpt"
    ]  # fmt: skip
    began = KArmedBandit.load_state_dict

    def go_on(bandit: KArmedBandit, state: dict) -> None:  # with what a longer search would find
        began(bandit, state)
        bandit.preferences[1] = 9.0
        bandit.counts += 9

    monkeypatch.setattr(KArmedBandit, "load_state_dict", go_on)
    command(*longer)
    (train,) = next_commands(capsys.readouterr().out)
    assert train[:2] == ["with", ADAPTION] and train[-1] == "start_from=search" and "max_steps=4" not in train
    command(*train, "max_steps=2")
    out = capsys.readouterr().out
    assert "Best gqa/val/accuracy" in out and "at K = 1" in out
    test, ask = next_commands(out)
    command(*test)
    assert "answers written to" in capsys.readouterr().out
    assert ask[:2] == ["predict", "with"] and ask[3:] == ["image=<picture>", "question=<question>"]


def test_a_search_that_goes_on_at_its_end_names_the_checkpoint_that_there_is(command, tiny, capsys) -> None:
    settings = tiny(SEARCH)
    command("with", SEARCH, **settings)
    (longer,) = next_commands(capsys.readouterr().out)
    last = next(word.partition("=")[2] for word in longer if word.startswith("resume_from="))
    command("with", SEARCH, **settings | {"resume_from": last})
    (again,) = next_commands(capsys.readouterr().out)
    assert f"resume_from={last}" in again


@pytest.mark.parametrize("family, said", [("bert", True), ("llama", False)])  # LLaMA's experiments have adapters anyway
def test_what_a_searchs_adapters_have_learnt_is_gone_on_with(family: str, said: bool) -> None:
    bandit = SimpleNamespace(verdict=lambda: Verdict(True, True, "K = 1"))
    callback = SimpleNamespace(best_model_path="")
    trainer = SimpleNamespace(
        default_root_dir="run", checkpoint_callback=callback, lightning_module=SimpleNamespace(bandit=bandit)
    )
    config = {"image_tokens": "auto", "use_adapter": True, "max_steps": None}
    (words,) = next_commands(what_next(config, trainer, [f"dvp_search_{family}_gqa", "shapes"], {}))
    settings = ["use_adapter=True", "start_from=search"][not said :]
    assert words == ["with", f"dvp_adaption_{family}_gqa", "shapes", *settings]


def test_after_a_blind_search_comes_one_that_sees(command, tiny, capsys) -> None:
    command("with", SEARCH, **tiny(SEARCH, image_tokens="zero"))
    out = capsys.readouterr().out
    (sees,) = next_commands(out)
    assert "This search was blind, and tells no K. Next, one that sees:" in out
    assert sees[1] == SEARCH and not [word for word in sees if "image_tokens" in word or "resume_from" in word]


def test_where_there_is_no_test_there_is_no_command_for_it(command, tiny, capsys, tmp_path: Path) -> None:
    settings = tiny(ADAPTION, insert_layer=1)
    tables = tmp_path / "tables"
    tables.mkdir()
    for table in Path(settings["data_root"]).glob("vqav2_*"):
        if "test" not in table.name:
            (tables / table.name).symlink_to(table)
    command("with", "dvp_adaption_bert_vqa", **settings | {"data_root": tables})
    (ask,) = next_commands(capsys.readouterr().out)
    assert ask[0] == "predict"


# Lines, and what a run takes


def test_a_long_epoch_says_something_every_minute(command, tiny, capsys, monkeypatch) -> None:
    monkeypatch.setattr(progress, "SILENT", 0)
    command("with", ADAPTION, **tiny(ADAPTION, max_steps=4, insert_layer=1, **FOUR))
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 0, update")]
    assert [line.split()[3] for line in said] == ["1", "2", "3", "4"] and "gqa/val" in said[-1]  # of none two


def test_an_update_of_many_passes_is_told_once(command, tiny, capsys, monkeypatch) -> None:
    monkeypatch.setattr(progress, "SILENT", 0)
    command("with", ADAPTION, **tiny(ADAPTION, max_steps=2, insert_layer=1, batch_size=4, per_gpu_batchsize=1))
    said = [line.split()[3] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert said == ["1", "2"]


def test_a_run_of_one_update_has_one_line_and_no_plot(command, tiny, capsys) -> None:
    command("with", ADAPTION, **tiny(ADAPTION, max_steps=1, insert_layer=1))
    out = capsys.readouterr().out
    assert out.count("update 1 of 1") == 1 and "loss of the training rows" not in out


def test_the_loss_is_not_asked_for_in_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked:
        training, asked = True, 0
        fit_loop = type("Loop", (), {"batch_idx": 0})()

        @property
        def progress_bar_metrics(self) -> dict[str, float]:
            self.asked += 1
            return {"vqa/train/loss": 1.0, "K": 2.0}

    bars, trainer = progress.Bars(4), Asked()
    for batch_idx in range(20):
        trainer.fit_loop.batch_idx = batch_idx
        assert bars.get_metrics(trainer, None) == {"train/loss": 1.0, "K": 2.0}
    assert trainer.asked == 2


# Trackers


def test_a_tracker_whose_package_is_not_there_is_refused(refused, tiny, tmp_path: Path) -> None:
    for name in ("wandb", "mlflow", "trackio"):
        sentence = refused("with", ADAPTION, **tiny(ADAPTION, logger=name))
        assert f"pip install {name}" in sentence and len(sentence.strip().splitlines()) == 1
    assert not (tmp_path / "result").exists()


def test_no_tracker_is_imported_unless_asked_for(command, tiny) -> None:
    command("with", ADAPTION, **tiny(ADAPTION, fast_dev_run=True))
    assert not {"wandb", "mlflow", "trackio"} & set(sys.modules)


@pytest.mark.parametrize("name, options", [("wandb", {"project", "name"}), ("mlflow", {"experiment_name", "run_name"})])
def test_lightnings_trackers_get_settings_and_metrics(
    name: str, options: set[str], command, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Fake(CSVLogger):
        def __init__(self, save_dir: str, **options: Any):
            super().__init__(tmp_path / "tracked")
            self.options, self.settings, self.metrics, self.place = options, {}, {}, str(save_dir)
            made.append(self)

        def log_hyperparams(self, params: dict[str, Any]) -> None:  # type: ignore[override]
            self.settings = params

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            self.metrics |= metrics

    monkeypatch.setitem(sys.modules, name, _module(name))
    monkeypatch.setattr(f"pytorch_lightning.loggers.{'WandbLogger' if name == 'wandb' else 'MLFlowLogger'}", Fake)
    settings = tiny(ADAPTION, insert_layer=1, logger=name)
    command("with", ADAPTION, **settings)
    (one,) = made
    assert set(one.options) == options and f"{ADAPTION}_seed0/version_0" in one.options.values()
    assert one.settings["insert_layer"] == 1 and one.place.startswith(settings["log_dir"])
    assert {"gqa/val/accuracy", "gqa/train/loss"} <= set(one.metrics) | {"gqa/train/loss"}
    assert metrics(settings, ADAPTION, "gqa/val/accuracy")[-1] == pytest.approx(one.metrics["gqa/val/accuracy"])


def test_trackio_gets_settings_and_metrics(command, tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    run = type("Run", (), {})()
    run.log = lambda found, step: calls.append(("log", found))
    run.finish = lambda: calls.append(("finish", None))
    fake = _module("trackio")
    fake.init = lambda **options: calls.append(("init", options)) or run
    monkeypatch.setitem(sys.modules, "trackio", fake)
    command("with", ADAPTION, **tiny(ADAPTION, insert_layer=1, logger="trackio"))
    assert [name for name, _ in calls][:2] == ["init", "log"] and calls[-1][0] == "finish"
    assert calls[0][1]["project"] == "dvp" and json.dumps(calls[0][1]["config"]) and len(ex.observers) == 1
    assert any("gqa/val/accuracy" in found for name, found in calls if name == "log")


def _module(name: str) -> ModuleType:
    """An empty module that counts as installed."""
    from importlib.machinery import ModuleSpec

    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    return module
