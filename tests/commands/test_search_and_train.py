"""search_and_train: one command for search, training at K from the search's weights, and answers."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvp.checkpoints import read_description
from dvp.commands.search_and_train import differences, two_stages
from dvp.config import EXPERIMENTS, ex, settle
from dvp.errors import UserError

ROOT = Path(__file__).parents[2]
BERT = "dvp_adaption_bert_gqa"


@pytest.fixture
def settings(tiny: Callable[..., dict]) -> dict[str, Any]:
    return tiny(BERT)


def test_it_searches_goes_on_at_k_and_answers(settings, arm_one_is_better, command, capsys) -> None:
    command("search_and_train", "with", BERT, **settings, learning_rate=1e-3)
    out, root = capsys.readouterr().out, Path(settings["log_dir"])
    assert [
        word for word in ("1 of 3", "2 of 3: training at K = 1", "3 of 3", "All on one page") if word not in out
    ] == []
    search = root / "dvp_search_bert_gqa_seed0" / "version_0"
    last = search / "checkpoints" / "last.ckpt"
    assert json.loads((search / "search.json").read_text())["updates"] == 2
    (best,) = (root / f"{BERT}_seed0" / "version_0" / "checkpoints").glob("epoch*.ckpt")
    description = read_description(str(best))
    assert description["insert_layer"] == 1
    assert description["config"]["load_path"] == str(last)
    assert f"From the search {last}, at K = 1: compressor 1, head, language model" in out
    page = (search / "search.html").read_text()
    assert "python run.py with dvp_search_bert_gqa" in page  # the search alone
    (then,) = re.findall(r"<h2>To go on</h2><p>Its checkpoint: (\S+)</p>\n<pre>Next:\n  (.*)</pre>", page)
    assert then[0] == str(last) and then[1].startswith(f"python run.py with {BERT} ") and "start_from=search" in then[1]
    assert str(best) in page and str(root / f"gqa_submit_{best.stem}.json") in page
    assert (root / f"gqa_submit_{best.stem}.json").is_file()
    assert f"Next:\n  python run.py predict with load_path={best} image=" in out
    assert len([path for path in (root / "sacred").iterdir() if path.name.isdigit()]) == 1


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_every_family_goes_through_all_stages(family: str, tiny, arm_one_is_better, command, capsys) -> None:
    experiment = f"dvp_adaption_{family}_vqa"
    settings = tiny(experiment, max_steps=1, use_adapter=True)
    command("search_and_train", "with", experiment, **settings)
    out = capsys.readouterr().out
    assert "3 of 3" in out and "at K = 1: compressor 1, adapters, head, norms" in out
    assert len(list(Path(settings["log_dir"]).glob("vqa_submit_*.about.json"))) == 1


def test_scienceqa_goes_through_all_stages(science, arm_one_is_better, command, capsys, tmp_path: Path) -> None:
    sizes = {"num_gpus": 0, "num_workers": 0, "batch_size": 4, "per_gpu_batchsize": 4, "num_heads": 4, "max_steps": 1}
    settings = science[1] | sizes | {"max_new_tokens": 2, "log_dir": tmp_path / "result"}
    command("search_and_train", "with", "dvp_adaption_llama_sqa", **settings)
    out = capsys.readouterr().out
    assert "3 of 3" in out and "at K = 1: compressor 1, adapters, prefix" in out
    (results,) = (path for path in (tmp_path / "result").glob("sqa_*.json") if "about" not in path.name)
    assert len(json.loads(results.read_text(encoding="utf-8"))["results"]) == 9


def test_nothing_is_trained_after_a_search_that_found_nothing(settings, refused, command) -> None:
    sentence = refused("search_and_train", "with", BERT, **settings)
    assert "Nothing was trained, since the search is undecided" in sentence and "search.json" in sentence
    assert not (Path(settings["log_dir"]) / f"{BERT}_seed0").exists()
    (longer,) = re.findall(r"Next, at least twice as long in all:\n  python run.py (.*)", sentence)
    words = shlex.split(longer)
    assert words[:2] == ["with", "dvp_search_bert_gqa"] and "max_steps=4" in words
    command(*words)
    records = [json.loads(path.read_text()) for path in Path(settings["log_dir"]).rglob("search.json")]
    assert sorted(record["updates"] for record in records) == [2, 4]
    (route,) = re.findall(r"go on from its leader so far, (load_path=\S+) (insert_layer=\d+);", sentence)
    command("with", BERT, *route, **settings | {"report": True})
    assert len(list((Path(settings["log_dir"]) / f"{BERT}_seed0").glob("*/report.html"))) == 1


def test_without_tables_of_the_test_it_ends_after_the_training(
    settings, arm_one_is_better, command, capsys, tmp_path
) -> None:
    data_root = Path(shutil.copytree(settings["data_root"], tmp_path / "data"))
    vqa = settings | {"data_root": data_root}
    (data_root / "vqav2_test.arrow").unlink()
    command("search_and_train", "with", "dvp_adaption_bert_vqa", **vqa)
    assert "no test, since its tables are not there" in capsys.readouterr().out


@pytest.mark.two_processes
def test_two_processes_do_all_stages(settings) -> None:
    options = settings | {"cpu_processes": 2}
    words = ["search_and_train", "with", BERT, *(f"{key}={value}" for key, value in options.items())]
    # as `arm_one_is_better`, in both processes
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import run; from dvp.search.bandit import KArmedBandit\n"
        "began = KArmedBandit.__init__\n"
        "def begin(self, *args, **options):\n"
        "    began(self, *args, **options); self.preferences[1] = 9.0; self.counts += 9\n"
        f"KArmedBandit.__init__ = begin; run.ex.run_commandline(['run.py', *{words!r}])\n"
    )
    place = Path(settings["log_dir"]).parent / "begin.py"  # Lightning starts its second process by the same words
    place.write_text(script, encoding="utf-8")
    ended = subprocess.run([sys.executable, str(place)], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "All on one page" in ended.stdout and "training at K = 1" in ended.stdout
    root = Path(settings["log_dir"])
    assert [path.name for path in (root / f"{BERT}_seed0").iterdir() if path.name.startswith("version")] == [
        "version_0"
    ]
    assert list(root.glob("gqa_submit_*.json"))


# Settings


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("typed", [{}, {"use_adapter": True, "seed": 3}])
def test_settings_are_settled_as_sacred_does_it(name: str, typed: dict[str, Any], tmp_path: Path) -> None:
    saved = tmp_path / "a.json"
    saved.write_text('{"weight_decay": 0.5}', encoding="utf-8")
    named = [name, str(saved), "shapes"]
    options = {"COMMAND": None, "UPDATE": []}
    config = dict(ex.run("print_config", named_configs=named, config_updates=dict(typed), options=options).config)
    assert settle(named, typed) == config


def test_each_stage_has_its_own_and_what_is_typed_holds_for_both() -> None:
    search, train = two_stages([BERT, "shapes"], {"learning_rate": 0.5})
    assert (search, train) == two_stages(["dvp_search_bert_gqa", "shapes"], {"learning_rate": 0.5})
    assert (search["search_stage"], train["search_stage"]) == (True, False)
    assert (search["use_adapter"], train["use_adapter"]) == (True, False)
    assert search["learning_rate"] == train["learning_rate"] == 0.5
    told = differences(search, train)
    assert "use_adapter                     True           False" in told and "learning_rate" not in told
    assert "max_epoch" in told and "kab" not in told  # which counts in one alone
    assert "max_epoch" not in differences(*two_stages([BERT, "shapes"], {"max_steps": 9}))  # which it does not count in


@pytest.mark.parametrize("key", ["insert_layer", "load_path", "resume_from", "test_only", "start_from", "search_stage"])
def test_what_the_stages_settle_between_them_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{key} is not for search_and_train"):
        two_stages([BERT, "shapes"], {key: 1})


def test_an_experiment_is_needed(refused, tiny) -> None:
    assert "needs an experiment" in refused("search_and_train", "with", **tiny(BERT, datasets="gqa"))
