"""The command line: words in the wrong place get the right hint, at once, and a start that fails leaves nothing."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dvp.commands import early
from dvp.commands.idle import IDLE
from dvp.config import EXPERIMENTS, RULES, SHAPES_MODELS, check, ex
from dvp.config.help import BEGIN
from dvp.config.saved import read_saved
from dvp.errors import UserError
from dvp.tasks import TASKS

ROOT = Path(__file__).parents[2]
BERT = "dvp_adaption_bert_vqa"


def run_here(*words: Any, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """What became of `python run.py <words>` in a process of its own."""
    command = [sys.executable, str(ROOT / "run.py"), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


# Words


@pytest.mark.parametrize(
    "line, hint",
    [
        ("with bert", "dvp_search_bert_vqa or dvp_search_bert_gqa"),
        ("bert", "after `with`, as in python run.py with dvp_search_bert_vqa"),
        ("with use_adapter", "use_adapter=<value>"),
        ("with convert datasets=vqa", "python run.py convert with"),
        ("with dvp_search_bert_vqa learning_rate = 1e-3", "Write learning_rate=1e-3 without spaces"),
        ("with dvp_search_bert_vqa learning_rate= 1e-3", "Write learning_rate=1e-3 without spaces"),
        ("with dvp_search_bert_vqa learning_rate =1e-3", "Write learning_rate=1e-3 without spaces"),
        ("with dvp_search_bert_vqa --learning_rate=1e-3", "write learning_rate=1e-3 after `with`"),
        ("with dvp_search_bert_vqa --learning-rate 1e-3", "write learning_rate=<value> after `with`"),
        ("with dvp_search_bert_vqa --fast", "There is no option --fast"),
        ("dvp_search_bert_vqa per_gpu_batchsize=4", "python run.py with dvp_search_bert_vqa per_gpu_batchsize=4"),
        ("dvp_search_bert_vqa with per_gpu_batchsize=4", "python run.py with dvp_search_bert_vqa per_gpu_batchsize=4"),
        ("per_gpu_batchsize=4", "python run.py with per_gpu_batchsize=4"),
        ("convert datasets=vqa", "python run.py convert with datasets=vqa"),
        ("shapes dvp_search_bert_vqa", "python run.py with dvp_search_bert_vqa shapes"),
        ("with dvp_search_bert_vqa dvp_adaption_bert_vqa shapes", "both given"),
        ("with shapes dvp_search_bert_vqa seed=1", "python run.py with dvp_search_bert_vqa shapes seed=1"),
        ("dvp_search_bert_vqa max_steps=2 shapes", "python run.py with dvp_search_bert_vqa shapes max_steps=2"),
        ("with shapes max_steps=2", "as in `python run.py with dvp_search_bert_vqa shapes max_steps=2`"),
        ("main with max_steps=2", "No experiment is given: name one"),
        ("predict with load_path=a question=What is it?", 'as in question="What is ..."'),
        ("predict with image=a.jpg shaps", "did you mean shapes?"),
        ("compare with result/a result/b", "as in runs=result/a."),
        ("predict with result/last.ckpt image=a.jpg", "as in load_path=result/last.ckpt."),
        ("with dvp_search_bert_vqa nowhere.json", "nowhere.json cannot be read"),
        ("with dvp_search_bert_vqa seed={[]:1}", "is no value"),
        ("help lerning_rate", "did you mean learning_rate"),
        ("help convert encode", "one name"),
        ("conver with datasets=vqa", "did you mean convert?"),
    ],
)
def test_a_misplaced_word_gets_the_right_hint(
    line: str, hint: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = refused(*line.split())
    assert hint in sentence
    assert len(sentence.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_shows_the_sentence_alone_and_a_log_has_a_word_before_it() -> None:
    words = [sys.executable, str(ROOT / "run.py"), "predict", "with", "load_path=nothing"]
    sentence = "load_path=nothing: there is no such checkpoint; give one under log_dir, such as .../last.ckpt."
    logged = run_here(*words[2:])
    assert (logged.returncode, logged.stderr, logged.stdout) == (1, f"UserError: {sentence}\n", "")
    main, side = os.openpty()
    shown = subprocess.run(words, stderr=side, stdout=side, timeout=120)
    os.close(side)
    assert shown.returncode == 1
    assert os.read(main, 10_000).decode().removesuffix("\x1b[0m") == f"{sentence}\r\n"  # colorama's last word
    os.close(main)


def test_sacreds_debugging_gets_the_error_itself() -> None:
    ended = run_here("predict", "--debug", "with", "load_path=nothing")
    assert ended.returncode == 1 and "Traceback" in ended.stderr and "there is no such checkpoint" in ended.stderr


def test_the_command_that_a_hint_names_is_taken(refused: Callable[..., str]) -> None:
    for line in ("shapes dvp_search_bert_vqa seed=1", "with shapes seed=1 dvp_search_bert_vqa"):
        words = refused(*line.split()).strip().split("python run.py with ")[1].split()
        assert ex.check_command_line(None, words) == {"seed": 1}


@pytest.mark.parametrize("words", [["datasets=vqa"], ["test_only=True"], ["load_path=a"], ["a.json"], [BERT]])
def test_what_says_what_is_trained_stands_for_an_experiment(words: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text('{"seed": 1}', encoding="utf-8")
    ex.check_command_line(None, words)
    ex.check_command_line("encode", ["shapes"])  # which trains nothing


def test_a_text_in_quotes_takes_nothing_of_what_follows(refused: Callable[..., str]) -> None:
    assert "did you mean shapes?" in refused("predict", "with", "question=What is it?", "shaps")


def test_the_usage_is_what_is_typed(command, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        command("--help")
    printed = capsys.readouterr().out
    assert printed.startswith("Usage:\n  python run.py [(with UPDATE...)] [options]\n") and BEGIN in printed
    assert "--loglevel=VALUE" in printed and "dummy" not in printed
    for words in (["score", "--help"], ["help", "score"]):
        with pytest.raises(SystemExit) as ended:
            command(*words)
        assert (ended.value.code, capsys.readouterr().out.splitlines()[0]) == (0, "python run.py score")


def test_options_of_sacred_and_their_values_are_no_settings(command, capsys: pytest.CaptureFixture) -> None:
    command("print_config", "--loglevel", "ERROR", "-u", "with", BERT, "seed=3")
    assert "seed = 3" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["with"]])
def test_a_bare_command_says_how_to_begin(words: list[str]) -> None:
    ended = run_here(*words)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.strip() == BEGIN.strip()


@pytest.mark.parametrize(
    "name, told",
    [
        ("end_lr", ["end_lr = 0 ", "polynomial decay", "It must be a number"]),
        ("dvp_search_t5_gqa", ["Search K: T5, gqa", "learning_rate = 0.0002  (not 0.0001)"]),
        ("convert", ["official raw files", "raw_root"]),
        ("seed", ["of weights, order, dropout and arms"]),  # not what Sacred says of it
        ("shapes", ["Draw the embedded world", "goes last", "num_heads = 4"]),
    ],
)
def test_help_tells_what_a_name_means(name: str, told: list[str], command, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        command("help", name)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert [part for part in told if part not in printed] == []


def test_help_tells_differences_where_there_are_some(command, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        command("help", "dvp_search_bert_vqa")
    printed = capsys.readouterr().out
    assert "datasets = ['vqa']  (as by default)" in printed and "search_stage = True  (not False)" in printed


def test_help_lists_everything_and_has_an_answer_for_each(command, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        command("help")
    listed = capsys.readouterr().out
    names = [*ex.commands, *ex.named_configs, *RULES]
    assert [name for name in names if name not in listed] == []
    for name in names:
        with pytest.raises(SystemExit) as ended:
            command("help", name)
        assert ended.value.code == 0


def test_no_colour_codes_go_into_a_pipe() -> None:
    for words in (("print_config", "with", "dvp_search_t5_gqa"), ("print_named_configs",)):
        ended = run_here(*words)
        assert ended.returncode == 0 and "dvp_search_t5_gqa" in ended.stdout
        assert "\x1b" not in ended.stdout + ended.stderr


def test_what_differs_from_its_default_is_marked_without_colours_too(command, capsys: pytest.CaptureFixture) -> None:
    command("print_config", "with", "dvp_search_bert_gqa", seed=3, max_epoch=10)
    legend, *lines = capsys.readouterr().out.splitlines()
    marked = {line.split()[1] for line in lines if line.startswith("*")}
    assert "* differs from its default" in legend
    assert {"seed", "search_stage", "datasets"} <= marked and not {"max_epoch", "kab"} & marked
    (seed,) = [line for line in lines if "seed = " in line]
    assert seed.startswith("* seed = 3 ") and "# of weights, order" in seed
    assert [line.split()[0] for line in lines if not line.startswith("*")] == sorted(ex.settings.keys() - marked)


def test_the_tokenizer_is_shown_where_it_lies(command, capsys: pytest.CaptureFixture) -> None:
    command("print_config", "with", "dvp_search_t5_gqa", "shapes")
    assert f"* tokenizer = '{SHAPES_MODELS / 't5'}'" in capsys.readouterr().out


# Saved settings


@pytest.mark.parametrize("name, write", [("a.json", json.dumps), ("a.yaml", yaml.safe_dump), ("a.yml", yaml.safe_dump)])
def test_saved_settings_are_read_and_later_words_win(name: str, write: Callable, command, capsys, tmp_path) -> None:
    saved = {"seed": 5, "learning_rate": 0.5, "raw_root": 2014, "load_path": None, "datasets": ["gqa"]}
    (tmp_path / name).write_text("\ufeff" + write(saved), encoding="utf-8")
    assert read_saved(str(tmp_path / name)) == saved | {"raw_root": "2014"}
    command("print_config", "with", "dvp_search_bert_vqa", str(tmp_path / name), "seed=6")
    printed = capsys.readouterr().out
    for line in ("seed = 6", "learning_rate = 0.5", "raw_root = '2014'", "datasets = ['gqa']", "search_stage = True"):
        assert line in printed


def test_what_save_config_writes_can_be_given_again(command, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    command("save_config", "with", "dvp_search_llama_gqa", "seed=5")
    capsys.readouterr()
    command("print_config", "with", "config.json")
    printed = capsys.readouterr().out
    assert "seed = 5" in printed and "search_sample = 10" in printed


@pytest.mark.parametrize(
    "name, text, hint",
    [
        ("a.json", '{"seed": {"py/reduce": [{"py/type": "os.mkdir"}, {"py/tuple": ["made"]}]}}', "seed="),
        ("a.json", '{"py/reduce": [{"py/type": "os.mkdir"}, {"py/tuple": ["made"]}]}', "is no setting"),
        ("a.yaml", 'seed: !!python/object/apply:os.mkdir ["made"]', "no YAML"),
        ("a.json", "{", "no JSON"),
        ("a.json", "[1]", "holds no settings"),
        ("a.yaml", "{}", "holds no settings"),  # as the hparams.yaml of a run
        ("claim.json", '{"format": 1, "job": null, "config": {}}', "give sacred/<n>/config.json"),
        ("a.json", "[" * 100_000, "no JSON"),
        ("a.json", '{"learning_rate": NaN}', "learning_rate=nan in"),
        ("a.yaml", "learning_rate: 1e-3", "write 0.001"),
        ("a.yaml", "lerning_rate: 0.1", "is no setting"),
        ("a.pickle", "cos\nmkdir\n(S'made'\ntR.", "There is no experiment"),
    ],
)
def test_saved_settings_run_no_code_and_faults_are_named(
    name: str, text: str, hint: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert hint in refused("print_config", "with", name)
    with pytest.raises((UserError, ValueError)):  # the way past the command line: Sacred itself
        ex.run("print_config", named_configs=[name])
    assert not (tmp_path / "made").exists()


def test_a_file_does_not_stand_in_for_an_experiment(refused: Callable[..., str], tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / BERT).write_text("{}", encoding="utf-8")
    assert "move it" in refused("print_config", "with", BERT)


def test_a_folder_may_be_named_by_a_number(command, tiny, data_root, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data_root, "1_000")
    command("with", BERT, **tiny(BERT, data_root="1_000", log_dir=1, max_steps=1))
    assert (tmp_path / "1" / f"{BERT}_seed0").is_dir()
    assert (tmp_path / "1" / "sacred" / "1" / "run.json").is_file()
    capsys.readouterr()


def test_log_dir_of_a_file_moves_the_record_too(command, tiny, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = tiny(BERT, max_steps=1, log_dir=str(tmp_path / "there"))
    (tmp_path / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    command("with", BERT, "settings.json")
    assert (tmp_path / "there" / "sacred" / "1" / "run.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"there", "settings.json"}


# Settings that do nothing


@pytest.mark.parametrize(
    "experiment, idle, of_use",
    [
        ("dvp_search_bert_vqa", {"insert_layer": 1, "end_lr": 1e-5, "answer_by": "likelihood"}, {"search_sample": 2}),
        (BERT, {"search_sample": 2, "max_epoch": 3, "task": "gqa", "raw_root": "a"}, {"insert_layer": 1, "end_lr": 0}),
        ("dvp_search_bert_vqa", {"search_sample": 2, "image_tokens_on": "host"}, {"kab": "mean"}),
        (BERT, {"turn_pictures": True}, {"image_tokens": "zero"}),
        (BERT, {"adapter_rank": 2, "merge": True}, {"use_adapter": "ia3", "adapter_targets": "key"}),
    ],
)
def test_a_setting_that_does_nothing_is_named(experiment: str, idle: dict, of_use: dict, command, tiny, capsys) -> None:
    settings = {key: value for key, value in tiny(experiment, fast_dev_run=True).items() if key != "report"}
    command("with", experiment, **settings | idle | of_use)
    lines = [line for line in capsys.readouterr().err.splitlines() if "has no effect" in line]
    assert {line.partition("=")[0] for line in lines} == set(idle)


def test_a_layer_that_nobody_has_chosen_is_said_with_the_way_to_one(command, tiny, capsys, tmp_path) -> None:
    settings = tiny(BERT, fast_dev_run=True, use_adapter=True, learning_rate=1e-4)
    command("with", BERT, **settings)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("No insert_layer")]
    search = line.partition("To find K: ")[2].partition(", then add start_from=search")[0].split()
    assert "at K = 0." in line and search[:4] == ["python", "run.py", "with", "dvp_search_bert_vqa"]
    typed = ex.check_command_line(None, search[3:])
    assert typed["use_adapter"] is True and not {"learning_rate", "max_steps", "fast_dev_run"} & typed.keys()
    (tmp_path / "k.json").write_text('{"insert_layer": 0}', encoding="utf-8")
    command("with", "dvp_search_bert_vqa", **settings)
    command("with", BERT, **settings, insert_layer=0)
    command("with", BERT, str(tmp_path / "k.json"), **settings)
    assert "No insert_layer" not in capsys.readouterr().err


@pytest.mark.parametrize("settings", [{"test_only": True}, {"insert_layer": 1, "fast_dev_run": True}])
def test_of_a_checkpoint_no_layer_is_asked_for(settings: dict, command, tiny, checkpoint, capsys) -> None:
    command("with", BERT, **tiny(BERT, load_path=checkpoint(BERT)) | settings)
    assert "No insert_layer" not in capsys.readouterr().err


def test_a_command_names_what_it_does_not_read(command, capsys, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        command("score", "with", "predictions=a", "num_gpus=0")
    assert "num_gpus=0 has no effect: score does not read it." in capsys.readouterr().err


def test_what_is_idle_are_settings() -> None:
    assert {key for keys, _, _ in IDLE for key in keys} <= set(RULES)


# Before torch


EARLY = {
    "no world": ({"data_root": "./datasets/shapes"}, "python run.py shapes"),
    "no folder": ({"data_root": "nowhere"}, "data_root='nowhere' is not a folder"),
    "no table": ({"data_root": "empty"}, "convert with datasets=vqa`, see DATA.md"),
    "no table of one's own": (
        {"datasets": "custom"},
        "custom_train.arrow is missing (data has no table of custom): make it with `python run.py convert with "
        "datasets=custom`, see docs/own_data.md.",
    ),
    "no layer": ({"insert_layer": 9}, "has layers 0 to 3"),
    "no GPU": ({"num_gpus": 64, "batch_size": 4096}, "this machine has"),
    "no GPU, and nothing of what fits on one": ({"num_gpus": 64, "per_gpu_batchsize": 0}, "this machine has"),
    "no tracker": ({"logger": "trackio"}, "pip install trackio"),
    "a folder of runs": ({"load_path": "runs"}, "load_path=runs/a_seed0/version_0/checkpoints/last.ckpt"),
    "a run": ({"resume_from": "runs/a_seed0/version_0"}, "resume_from=runs/a_seed0/version_0/checkpoints/last.ckpt"),
    "a part of a checkpoint": (
        {"load_path": "runs/a_seed0/version_0/checkpoints/last.ckpt/weights.safetensors"},
        "give its folder, load_path=runs/a_seed0/version_0/checkpoints/last.ckpt",
    ),
    "a folder of runs to test": ({"load_path": "runs", "test_only": True}, "is a folder of 1 checkpoint(s)"),
    "no tokenizer": ({"tokenizer": "./nowhere"}, "tokenizer=./nowhere"),
    "no network": ({"tokenizer": "bert-base-nowhere"}, "or put `shapes` behind the experiment: a tiny BERT is here."),
    "a file for a tokenizer": ({"tokenizer": "data/vqav2_train.arrow"}, "vqav2_train.arrow is no folder here"),
    "no encoder": ({"clip_model": "./nowhere"}, "clip_model=./nowhere"),
    "another size": ({"image_size": 32}, "takes 60 pixels"),
    "another model": ({"language_model": "T5", "tokenizer": SHAPES_MODELS / "bert"}, "holds a BERT model"),
    "too long a text": ({"max_text_len": 5000}, "positions"),
    "no checkpoint": ({"load_path": "none.ckpt"}, "none.ckpt"),
    "nothing to resume": ({"resume_from": "best"}, "resume_from=best"),
    "no place for results": ({"log_dir": "a file"}, "choose another log_dir"),
}


@pytest.mark.parametrize("fault", EARLY)
def test_what_is_not_there_is_missed_before_torch_is_imported(fault: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "empty").mkdir()
    for split in TASKS["vqa"].train:
        (tmp_path / "data" / f"vqav2_{split}.arrow").touch()
    (tmp_path / "a file").touch()
    (checkpoint := tmp_path / "runs" / "a_seed0" / "version_0" / "checkpoints" / "last.ckpt").mkdir(parents=True)
    (checkpoint / "description.json").touch()
    (checkpoint / "weights.safetensors").touch()
    before = sorted(tmp_path.rglob("*"))
    settings, hint = EARLY[fault]
    settings = {"data_root": "data"} | settings
    words = ["with", BERT, "shapes", *(f"{key}={value}" for key, value in settings.items())]
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import run\n"
        f"try: run.ex.run_commandline(['run.py', *{words!r}])\n"
        "finally: print('torch' in sys.modules)"
    )
    start = time.perf_counter()
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout.strip() == "False"
    assert hint in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert time.perf_counter() - start < 20  # about 0.3 s where nothing else runs


@pytest.mark.parametrize("command", ["encode", "doctor"])
def test_a_hub_that_is_not_reached_is_asked_once(command: str, data_root: str, free_port: int) -> None:
    hub = {"HF_ENDPOINT": f"http://127.0.0.1:{free_port}", "HF_HUB_OFFLINE": "0"}
    words = [command, "with", BERT, "shapes", f"data_root={data_root}", "tokenizer=bert-base-nowhere"]
    asked = [sys.executable, "run.py", *words]
    ended = subprocess.run(asked, cwd=ROOT, env=os.environ | hub, capture_output=True, text=True)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1 and said.count(f"{hub['HF_ENDPOINT']} cannot be reached to fetch it") == 1
    assert len(ended.stderr.strip().splitlines()) == 1  # no word of trying again


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:{port}", "socks://127.0.0.1:{port}"])
def test_a_hub_behind_a_proxy_that_cannot_be_used_is_not_reached(proxy: str, data_root: str, free_port: int) -> None:
    network = {"ALL_PROXY": proxy.format(port=free_port), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://hub.invalid"}
    words = ["encode", "with", BERT, "shapes", f"data_root={data_root}", "tokenizer=bert-base-nowhere"]
    asked = [sys.executable, "run.py", *words]
    ended = subprocess.run(asked, cwd=ROOT, env=os.environ | network, capture_output=True, text=True)
    assert ended.returncode == 1 and "http://hub.invalid cannot be reached to fetch it" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_start_that_fails_late_leaves_no_record(refused, command, tiny, tmp_path: Path) -> None:
    settings = tiny(BERT, num_heads=5)  # does not divide the width, which only the model tells
    refused("with", BERT, **settings)
    assert not Path(settings["log_dir"]).exists()
    command("with", BERT, **settings | {"num_heads": 4, "max_steps": 1})
    refused("with", BERT, **settings)
    records = Path(settings["log_dir"]) / "sacred"
    assert {path.name for path in records.iterdir()} == {"1", "_sources"}


def test_a_run_that_fails_later_keeps_its_record(command, tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvp.module import DVPModule

    def fail(*_: Any) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(DVPModule, "training_step", fail)
    settings = tiny(BERT)
    with pytest.raises(SystemExit):
        command("with", BERT, **settings)
    record = json.loads((Path(settings["log_dir"]) / "sacred" / "1" / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "FAILED"


def test_a_strategy_whose_package_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install deepspeed"):
        early.check_devices(0, "deepspeed_stage_2")


@pytest.mark.parametrize("visible, count", [("", 0), ("-1", 0), (None, None)])
def test_gpus_that_are_hidden_are_not_counted(visible: str | None, count: int | None, monkeypatch) -> None:
    import torch

    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    at_most = early._gpus_at_most()
    assert at_most is None or (at_most >= torch.cuda.device_count() if count is None else at_most == count)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_experiment_sets_what_does_nothing_in_it(name: str) -> None:
    config = check(ex.settings | ex.named_configs[name]() | {"per_gpu_batchsize": 1})
    idle = [key for keys, when, _ in IDLE for key in keys if when(config) and key in ex.named_configs[name]()]
    assert idle == []
