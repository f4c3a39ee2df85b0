"""What a run leaves to look at: report.html of its own answers, pictures, TensorBoard; and that it changes nothing."""

import json
import os
import re
import shlex
import signal
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_world import NAMED_FAMILIES, fit
from two_processes import in_two_processes

import dvp
from dvp.commands import report as collecting
from dvp.files import write_whole
from dvp.module import DVPModule
from dvp.report import page as pages
from dvp.runs.answered import kept_answers
from dvp.tasks import TASKS

GQA = "dvp_adaption_bert_gqa"
SEARCH = "dvp_search_bert_gqa"


@pytest.fixture
def tiny(tiny: Callable[..., dict]) -> Callable[..., dict]:
    """Those of a run that leaves all there is to look at."""
    return lambda experiment, **changes: tiny(experiment, **{"report": True} | changes)


def folder_of(settings: dict[str, Any], version: int = 0) -> Path:
    (folder,) = Path(settings["log_dir"]).glob(f"*/version_{version}")
    return folder


def page_of(settings: dict[str, Any]) -> str:
    return (folder_of(settings) / "report.html").read_text(encoding="utf-8")


def images_of(folder: Path) -> list[str]:
    board = EventAccumulator(str(folder))
    board.Reload()
    return sorted(board.Tags()["images"])


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "last.ckpt" / "weights.safetensors")


@pytest.mark.parametrize("task", ["vqa", "gqa", "snli_ve"])
@pytest.mark.parametrize("family", NAMED_FAMILIES)
def test_a_training_ends_with_its_report(family: str, task: str, tiny, command, capsys) -> None:
    experiment = f"dvp_adaption_{family}_{task}"
    settings = tiny(experiment, insert_layer=1)
    command("with", experiment, **settings)
    out, text, folder = capsys.readouterr().out, page_of(settings), folder_of(settings)
    assert f"Report: {folder / 'report.html'}" in out
    assert text.count("data:image/jpeg") == 3 * min(8, 20)  # each of the eight questions, its heat map, and by heads
    assert not re.search(r"href=|url\(|@import|<script|src=\"(?!data:)", text)
    assert "frozen" in text and "image encoder" in text and "torch" in text
    (best,) = (folder / "checkpoints").glob("epoch*.ckpt")
    assert f"<td>checkpoint</td><td>{best}</td>" in text and "<td>seed</td><td>0</td>" in text
    assert f"python run.py predict with load_path={best} image=&lt;picture&gt; " in text
    assert set(re.findall(r"<td>(\w+_\S+\.arrow)</td>", text)) == {
        f"{TASKS[task].files}_{split}.arrow" for split in (*TASKS[task].train, *TASKS[task].validate)
    }
    assert re.search(rf"<td>began</td><td>{date.today().year}-.*<td>took</td><td>0:0\d:\d\d</td>", text)
    assert sorted(path.name for path in (folder / "report").iterdir()) == ["heat_maps.png", "loss.png", "metric.png"]
    # the rate is written every ten updates
    assert images_of(folder) == ["report/heat_maps", "report/loss", "report/metric"]


@pytest.mark.parametrize("changes", [{}, {"bucket_by_length": True}, {"image_tokens": "cache"}])
def test_what_is_told_is_what_the_best_checkpoint_answers(changes: dict[str, Any], configure) -> None:
    trainer = fit(configure(GQA, insert_layer=1, max_steps=6, learning_rate=1e-2, use_adapter=True) | changes)
    best, data = kept_answers(trainer).best, trainer.datamodule
    assert best.score == pytest.approx(float(trainer.checkpoint_callback.best_model_score))
    assert best.score == pytest.approx(100 * sum(row.score for row in best.rows) / len(best.rows))
    answering = dvp.load(trainer.checkpoint_callback.best_model_path)
    assert sorted(row.item for row in best.rows) == list(range(8)) and set(best.looked) == {
        ("val", n) for n in range(8)
    }
    for row in best.rows:
        told = data.reader.told(data.questions(("val",)), row.item)
        table, place = told.picture
        answer = answering.answer(table["image"][place].as_py(), told.question, attention=True)
        assert (answer.text, float(answer.text in told.right)) == (row.text, row.score)
        torch.testing.assert_close(best.looked["val", row.item], answer.attention, rtol=1e-4, atol=1e-6)


def test_it_changes_nothing_of_the_training(tiny, command) -> None:
    settings = tiny(GQA, insert_layer=1, max_steps=4)
    states = []
    for report in (True, False):
        command("with", GQA, **settings | {"report": report})
        states.append(torch.get_rng_state())
    with_, without = (folder_of(settings, version) for version in range(2))
    assert (with_ / "report.html").is_file() and not (without / "report.html").exists()
    assert not (without / "report").exists()
    for name, tensor in weights_of(with_).items():
        assert torch.equal(tensor, weights_of(without)[name])
    assert torch.equal(*states)
    assert (with_ / "metrics.csv").read_text() == (without / "metrics.csv").read_text()


def test_a_blind_run_shows_pictures_without_heat_maps(tiny, command) -> None:
    settings = tiny(GQA, insert_layer=1, image_tokens="zero")
    command("with", GQA, **settings)
    text = page_of(settings)
    assert text.count("data:image/jpeg") == 8 and "without their pictures" in text
    assert not list(folder_of(settings).rglob("heat_maps.png"))


def test_science_qa_is_grouped_by_subject_and_shows_choices(science, command, tmp_path: Path) -> None:
    settings = science[1] | {
        "log_dir": tmp_path, "num_gpus": 0, "num_workers": 0, "per_gpu_batchsize": 4, "batch_size": 4, "num_heads": 4,
        "max_epoch": 1, "insert_layer": 1,
    }  # fmt: skip
    command("with", "dvp_adaption_llama_sqa", **settings)
    text = page_of(settings)
    assert "By subject" in text and "(A) " in text and "(B) " in text


@pytest.mark.two_processes
def test_several_processes_make_one_report_of_all_answers(tiny, command) -> None:
    settings = tiny(GQA, insert_layer=1, cpu_processes=2, per_gpu_batchsize=2)
    in_two_processes(command, "with", GQA, **settings)
    text = page_of(settings)
    assert "all 8 questions of val" in text
    assert text.count("data:image/jpeg") == 12  # the first process knows what it looked at: of four questions


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_reports_what_there_is(
    signum: int, tiny, command, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, step = tiny(GQA, insert_layer=1, max_steps=100), DVPModule.training_step

    def train(self: DVPModule, *args: Any) -> torch.Tensor:
        if self.trainer.global_step == 3 and not self.within_update:  # once: twice means at once
            os.kill(os.getpid(), signum)
        return step(self, *args)

    monkeypatch.setattr(DVPModule, "training_step", train)
    with pytest.raises(SystemExit) as ended:
        command("with", GQA, **settings)
    assert ended.value.code in (75, 130) and "What it answers" in page_of(settings)
    said = capsys.readouterr().err
    assert "saved in" in said and "Aborted" not in said


def test_the_command_makes_the_same_weights_again(tiny, command, tmp_path: Path) -> None:
    settings = tiny(GQA, max_steps=1)
    command("with", "dvp_search_bert_gqa", **settings | {"exp_name": "search"})
    (found,) = Path(settings["log_dir"]).rglob("search.json")
    found.write_text(found.read_text().replace('"found": false', '"found": true'))
    settings |= {"start_from": "search", "num_heads": 4}
    command("with", GQA, **settings)
    (first,) = Path(settings["log_dir"]).glob(f"{GQA}_seed0/version_0")
    (typed,) = re.findall(r"<pre>python run.py (with .*?)</pre>", (first / "report.html").read_text())
    words = shlex.split(typed.replace("&#x27;", "'"))
    assert not {"start_from=search", "insert_layer=auto"} & set(words)
    found.unlink()  # another would be found later
    command(*words)
    (again,) = Path(settings["log_dir"]).glob(f"{GQA}_seed0/version_1")
    for name, tensor in weights_of(first).items():
        assert torch.equal(tensor, weights_of(again)[name])


def test_the_command_on_its_page_makes_the_same_search_again(tiny, command) -> None:
    settings = tiny(SEARCH, kab="mean", seed=3, max_steps=6)
    command("with", SEARCH, **settings)
    first = folder_of(settings)
    text = (first / "search.html").read_text()
    assert f"Its checkpoint: {first / 'checkpoints' / 'last.ckpt'}<" in text and "<td>kab</td><td>mean</td>" in text
    assert " max_steps=12 " in text and f"resume_from={first / 'checkpoints' / 'last.ckpt'}</pre>" in text
    assert "z: by how many of its standard errors" in text
    assert re.search(r"<td>began</td><td>\d{4}-.*<td>took</td>.*<td>torch</td>", text)
    (typed,) = re.findall(r"<pre>python run.py (.*?)</pre>", text.partition("To repeat it")[2])
    command(*shlex.split(typed.replace("&#x27;", "'")))
    found = [json.loads((folder_of(settings, number) / "search.json").read_text()) for number in range(2)]
    assert found[0]["trace"] == found[1]["trace"] and found[0]["command"] == found[1]["command"]


def test_a_sweep_spells_out_what_it_set(tiny, command) -> None:
    settings = tiny(GQA, layers=1, seeds=3)
    command("sweep", "with", GQA, **settings)
    (text,) = (path.read_text() for path in Path(settings["log_dir"]).rglob("report.html"))
    assert "insert_layer=1" in text and "seed=3" in text and f"exp_name={GQA}_K1" in text
    assert "layers=" not in text and "seeds=" not in text  # which a training does not take


def test_where_there_is_no_room_it_is_said_and_the_run_has_ended(
    tiny, command, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, write: Callable[[Path], None]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pages, "write_whole", lambda path, write: write_whole(path, lambda place: full(place, write)))
    settings = tiny(GQA, insert_layer=1)
    command("with", GQA, **settings)
    assert "There is no report" in (out := capsys.readouterr().out) and "No space left" in out
    assert weights_of(folder_of(settings)) and not (folder_of(settings) / "report.html").exists()


def test_a_fault_in_the_report_is_not_hidden_and_comes_behind_the_checkpoint(
    tiny, command, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(collecting, "about", fail)
    settings = tiny(GQA, insert_layer=1)
    with pytest.raises(SystemExit) as ended:
        command("with", GQA, **settings)
    assert ended.value.code == 1 and "ZeroDivisionError" in capsys.readouterr().err
    assert weights_of(folder_of(settings))


@pytest.mark.parametrize("kab, names", [("published", ["policy", "scores"]), ("mean", ["leads", "scores"])])
def test_a_search_has_its_charts_as_pictures_too(kab: str, names: list[str], tiny, command) -> None:
    settings = tiny("dvp_search_bert_gqa", kab=kab, max_steps=4)
    command("with", "dvp_search_bert_gqa", **settings)
    folder = folder_of(settings)
    assert sorted(path.stem for path in (folder / "report").glob("*.png")) == names
    assert images_of(folder) == [f"report/{name}" for name in names]
    assert not (folder / "report.html").exists()


def test_a_training_that_had_ended_keeps_its_report(tiny, command, capsys) -> None:
    settings = tiny(GQA, max_steps=2, resume_from="auto")
    command("with", GQA, **settings)
    before = page_of(settings)
    capsys.readouterr()
    command("with", GQA, **settings)
    assert page_of(settings) == before and "No validation since it went on" in capsys.readouterr().out
