"""compare: runs beside each other, as text and as a page."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def write_run(folder: Path, scores: list[float], **changes: Any) -> Path:
    """A run's folder as a training on GQA leaves it, without checkpoints."""
    config = {
        "datasets": "gqa",
        "search_stage": False,
        "insert_layer": 1,
        "learning_rate": 1e-3,
        "log_dir": str(folder),
    }
    folder.mkdir(parents=True)
    (folder / "claim.json").write_text(json.dumps({"format": 1, "config": config | changes}))
    rows = [f"{10 * place - 1},{score}," for place, score in enumerate(scores, 1)]
    (folder / "metrics.csv").write_text("\n".join(["step,gqa/val/accuracy,gqa/train/loss", *rows, "99,,1.0"]))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    scores = {"a": [40.0, 60.0, 55.0], "b": [30.0, 35.0], "c": []}
    return [
        write_run(tmp_path / f"{name}_seed0" / "version_0", found, insert_layer=place, max_epoch=place, max_steps=9)
        for place, (name, found) in enumerate(scores.items())
    ]


def test_the_table_the_plot_and_what_differs(runs: list[Path], command, capsys, tmp_path: Path) -> None:
    command("compare", "with", runs=",".join(map(str, runs)), log_dir=tmp_path)
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["a", "a_seed0/version_0", "0", "60.00", "20", "55.00", "30"] in rows
    assert ["b", "b_seed0/version_0", "1", "35.00", "20", "35.00", "20"] in rows
    assert ["c", "c_seed0/version_0", "2", "-", "-", "-", "-"] in rows
    assert ["insert_layer", "0", "1", "2"] in rows
    assert "max_epoch" not in out and "seed " not in out  # max_steps counts; the seed is the same
    assert "gqa/val/accuracy in percent" in out and re.search(r"\| +b+$", out, re.MULTILINE)
    page = (tmp_path / "compare.html").read_text()
    assert page.count("<svg") == 1 and "60.00" in page and "insert_layer" in page
    assert not re.search(r"(src|href)=|url\(|<script", page)
    assert (tmp_path / "report" / "compare.png").is_file()


def test_a_folder_stands_for_the_runs_in_it_each_once(command, capsys, tmp_path: Path) -> None:
    for version in (10, 2):
        write_run(tmp_path / f"version_{version}", [50.0])
    command("compare", "with", runs=f"{tmp_path},{tmp_path / 'version_2'}", log_dir=tmp_path)
    out = capsys.readouterr().out
    assert out.index("version_2") < out.index("version_10") and out.count("version_2") == 1
    assert "differ in no setting" in out


def test_of_a_search_it_tells_the_k_that_was_found(command, capsys, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "search", [50.0], search_stage=True, insert_layer=0)
    (folder / "search.json").write_text(json.dumps({"insert_layer": 3}))
    write_run(tmp_path / "other", [50.0])
    command("compare", "with", runs=f"{folder},{tmp_path / 'other'}", log_dir=tmp_path)
    assert re.search(r"search +3 found", capsys.readouterr().out)


def test_runs_that_were_trained_are_compared(tiny, command, capsys) -> None:
    settings = tiny("dvp_adaption_bert_gqa")
    for layer in (0, 1):
        command("with", "dvp_adaption_bert_gqa", **settings, insert_layer=layer)
    capsys.readouterr()
    command("compare", "with", runs=f"{settings['log_dir']}/dvp_adaption_bert_gqa_seed0", log_dir=settings["log_dir"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["insert_layer", "0", "1"] in rows
    assert [row[:3] for row in rows if row[:1] in (["a"], ["b"])] == [["a", "version_0", "0"], ["b", "version_1", "1"]]


def test_updates_are_those_of_the_budget_of_a_sweep_and_of_a_training_alone(tiny, command, capsys) -> None:
    settings = tiny("dvp_adaption_bert_gqa", max_steps=3)
    command("sweep", "with", "dvp_adaption_bert_gqa", **settings, layers="0,1")
    command("with", "dvp_adaption_bert_gqa", **settings, insert_layer=2)
    capsys.readouterr()
    runs = ",".join(str(path.parent) for path in Path(settings["log_dir"]).rglob("claim.json"))
    command("compare", "with", runs=runs, log_dir=settings["log_dir"])
    assert re.search(r"of all runs: .*\bupdates 3\b", capsys.readouterr().out)


@pytest.mark.parametrize(
    "given, message",
    [
        ("", "two runs at least"),
        ("{0}", "two runs at least"),
        ("{0},{0}", "two runs at least"),
        ("{0},nowhere", "nowhere is no run's folder"),
        ("{0},{1}", "is not whole JSON"),
        ("{0},{2}", "does not tell the settings"),
    ],
)
def test_what_is_no_run_is_refused(given: str, message: str, runs: list[Path], refused, tmp_path: Path) -> None:
    (runs[1] / "claim.json").write_text("{")
    (runs[2] / "claim.json").unlink()
    assert message in refused("compare", "with", runs=given.format(*runs), log_dir=tmp_path)
    assert not (tmp_path / "compare.html").exists()


def test_it_waits_for_no_torch(runs: list[Path], tmp_path: Path) -> None:
    words = ["run.py", "compare", "with", f"runs={runs[0]},{runs[1]}", f"log_dir={tmp_path}"]
    script = f"import sys, run; run.ex.run_commandline({words!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=ROOT).returncode == 0
