"""A test takes from its checkpoint what is not typed, refuses what is typed otherwise, and opens its table alone."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_world import fit

from dvp.errors import UserError
from dvp.files import write_checksums
from dvp.runs.told import settings_told
from dvp.tasks import TASKS

ROOT = Path(__file__).parents[2]
UNUSUAL = {"insert_layer": 2, "num_heads": 2, "max_text_len": 9, "use_adapter": True, "turn_pictures": True}


@pytest.fixture
def trained(configure) -> Callable[..., Path]:
    """Trains an update; returns the checkpoint."""

    def train(experiment: str = "dvp_adaption_t5_gqa", **changes: Any) -> Path:
        (last,) = Path(fit(configure(experiment, max_steps=1, **changes)).log_dir).rglob("last.ckpt")
        return last

    return train


@pytest.fixture
def test_table(data_root: str, tmp_path: Path) -> Callable[[str], Path]:
    """A folder that holds the test table of a task, and nothing else."""

    def make(task: str) -> Path:
        (tmp_path / "data").mkdir()
        for split in TASKS[task].test:
            name = f"{TASKS[task].files}_{split}.arrow"
            shutil.copy(Path(data_root) / name, tmp_path / "data" / name)
        return tmp_path / "data"

    return make


@pytest.mark.parametrize("task", ["vqa", "gqa", "snli_ve"])
def test_a_test_needs_its_checkpoint_and_its_table(task: str, trained, test_table, command, tmp_path, capsys) -> None:
    last = trained(f"dvp_adaption_t5_{task}", **UNUSUAL)
    log_dir = tmp_path / "tested"
    command("with", test_only=True, load_path=last, data_root=test_table(task), log_dir=log_dir, num_gpus=0, num_workers=0)  # fmt: skip  # noqa: E501
    assert list(log_dir.glob(f"dvp_adaption_t5_{task}_seed0/test_0"))
    if not TASKS[task].submission:
        assert f"{task}/test/accuracy" in capsys.readouterr().out
        return
    (note,) = log_dir.glob("*.about.json")
    config = json.loads(note.read_text())["config"]
    assert {key: config[key] for key in UNUSUAL} == UNUSUAL
    assert (config["language_model"], config["datasets"]) == ("T5", task)


def test_the_tables_labels_must_be_the_checkpoints(trained, test_table, refused, tmp_path: Path) -> None:
    last, data = trained("dvp_adaption_bert_gqa"), test_table("gqa")
    description = json.loads((last / "description.json").read_text())
    description["answers"] = description["answers"][::-1]
    (last / "description.json").write_text(json.dumps(description))
    write_checksums(last)
    options = {"test_only": True, "load_path": last, "data_root": data, "num_gpus": 0, "num_workers": 0}
    assert "the checkpoint's own, is of another conversion" in refused("with", **options, log_dir=tmp_path / "tested")


TYPED = {
    "insert_layer": ([], {"insert_layer": 0}, "insert_layer is 2 there and 0 here"),
    "num_heads": ([], {"num_heads": 12}, "num_heads is 2 there and 12 here"),
    "use_adapter": ([], {"use_adapter": False}, "use_adapter is True there and False here"),
    "max_text_len": ([], {"max_text_len": 16}, "max_text_len is 9 there and 16 here"),
    "as_published": ([], {"as_published": True}, "as_published is False there and True here"),
    "task": ([], {"datasets": "vqa", "data_root": "all"}, "datasets is gqa there and vqa here"),
    "experiment": (["dvp_search_t5_gqa"], {}, "search_stage is False there and True here"),
    "family": (["dvp_adaption_bert_gqa"], {}, "language_model is T5 there and BERT here"),
    "two": ([], {"insert_layer": 1, "num_heads": 4}, "2 there and 1 here; num_heads is 2 there and 4 here"),
}


def test_what_is_typed_otherwise_is_named_before_torch_is_imported(trained, test_table, data_root, tmp_path) -> None:
    last, data = trained(**UNUSUAL), test_table("gqa")
    lines = []
    for words, settings, message in TYPED.values():
        settings = {"test_only": True, "load_path": last, "data_root": data, "num_gpus": 0, "log_dir": "out"} | settings
        settings["data_root"] = data_root if settings["data_root"] == "all" else settings["data_root"]
        lines.append(([*words, *(f"{key}={value}" for key, value in settings.items())], message))
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import run\n"
        f"for words, message in {lines!r}:\n"
        "    try: run.ex.run_commandline(['run.py', 'with', *words])\n"
        "    except SystemExit as ended: print('-', message, ended.code, 'torch' in sys.modules, file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    for _, message in lines:
        assert f"- {message} 1 False" in ended.stderr, ended.stderr
        assert ended.stderr.count(message) == 2, message
    assert not (tmp_path / "out").exists()


def test_a_typed_setting_that_agrees_and_a_precision_are_taken(
    trained, test_table, command, language_models, tmp_path
) -> None:
    last, base = trained(precision="bf16", **UNUSUAL), language_models["t5"]  # of the experiment it is another
    assert settings_told(str(last), on_gpu=False)["precision"] == "bf16"
    options = {"test_only": True, "load_path": last, "data_root": test_table("gqa"), "num_gpus": 0, "num_workers": 0}
    options |= {
        "log_dir": tmp_path / "tested",
        "insert_layer": 2,
        "precision": 32,
        "per_gpu_batchsize": 3,
        "tokenizer": base,
    }
    command("with", "dvp_adaption_t5_gqa", **options)
    config = json.loads(next((tmp_path / "tested").glob("*.about.json")).read_text())["config"]
    assert (config["precision"], config["per_gpu_batchsize"], config["insert_layer"]) == (32, 3, 2)


def test_16_bit_is_for_a_gpu(trained) -> None:
    last = trained()
    description = json.loads((last / "description.json").read_text())
    description["config"]["precision"] = 16
    (last / "description.json").write_text(json.dumps(description))
    write_checksums(last)
    assert [settings_told(str(last), on_gpu)["precision"] for on_gpu in (True, False)] == [16, "auto"]


def test_an_older_description_tells_what_it_holds(trained) -> None:
    last = trained()
    description = json.loads((last / "description.json").read_text())
    del description["config"]
    (last / "description.json").write_text(json.dumps(description))
    write_checksums(last)
    told = settings_told(str(last), on_gpu=False)
    assert (told["language_model"], told["insert_layer"], told["datasets"]) == ("T5", 0, ["gqa"])
    assert "tokenizer" not in told


def test_a_search_is_tested_at_the_layer_that_it_found(trained, test_table, command, tmp_path, monkeypatch) -> None:
    from dvp.checkpoints import TrainedOnly
    from dvp.module import DVPModule

    last = trained("dvp_search_bert_gqa", search_sample="all")
    best = TrainedOnly().load_checkpoint(str(last))
    best["bandit"]["preferences"][:] = 0
    best["bandit"]["preferences"][2] = 1
    best["description"] = json.loads((last / "description.json").read_text())
    TrainedOnly().save_checkpoint(best, str(last))
    seen, evaluate = [], DVPModule._evaluate

    def spy(module: DVPModule, *arguments: Any) -> Any:
        seen.append(module.best_layer)
        return evaluate(module, *arguments)

    monkeypatch.setattr(DVPModule, "_evaluate", spy)
    command("with", test_only=True, load_path=last, data_root=test_table("gqa"), log_dir=tmp_path / "out", num_gpus=0)
    assert set(seen) == {2}


def test_a_folder_that_is_no_checkpoint_is_refused(refused, tmp_path: Path, data_root: str) -> None:
    (tmp_path / "last.ckpt").mkdir()
    options = {"test_only": True, "load_path": tmp_path / "last.ckpt", "data_root": data_root, "num_gpus": 0}
    assert "no description.json" in refused("with", **options)
    with pytest.raises(UserError, match="no description.json"):
        settings_told(str(tmp_path / "last.ckpt"), on_gpu=False)
