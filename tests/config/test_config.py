"""The settings: the published values, and no wrong word or value that starts a run."""

import json
from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from dvp import search
from dvp.adapters import ADAPTERS
from dvp.config import EXPERIMENTS, NAMED, RULES, SHAPES, SHAPES_MODELS, TASK_NAMES, check, ex, fill, rules
from dvp.config.experiments import (
    SHAPES_ADAPTERS,
    SHAPES_SCIENCE_QA,
    SHAPES_SCIENCE_QA_SEARCH,
    SHAPES_SEARCH,
    SHAPES_VQA_SEARCH,
    search_of,
)
from dvp.config.rules import SEARCH_RULES, STRATEGIES, TEXTS, check_value, check_values
from dvp.errors import UserError
from dvp.evaluation import SCORERS
from dvp.families import LANGUAGE_MODELS
from dvp.tasks import TASKS

PUBLISHED = json.loads((Path(__file__).parents[1] / "published_configs.json").read_text(encoding="utf-8"))
NAMES = [name for name in PUBLISHED if name.startswith("dvp_")]


def resolve(*named: str, **updates: Any) -> dict[str, Any]:
    """The config as Sacred makes it of named configs and `key=value` updates."""
    return dict(ex.run("print_config", named_configs=named, config_updates=updates, options={"COMMAND": None, "UPDATE": []}).config)  # fmt: skip  # noqa: E501


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    return dict(ex.configurations[0](preset={})) | {"per_gpu_batchsize": 256}


@pytest.mark.parametrize("name", ["defaults", *NAMES])
def test_named_configs_have_the_published_values(name: str) -> None:
    published = PUBLISHED["defaults"] | (PUBLISHED[name] if name != "defaults" else {})
    config = resolve(*([name] if name != "defaults" else []))
    assert published.pop("precision") == 16
    assert config["precision"] == "auto"
    assert {key: config[key] for key in published} == published


def test_all_published_configs_are_there() -> None:
    assert len(NAMES) == 18
    assert set(NAMES) <= set(EXPERIMENTS)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", LANGUAGE_MODELS)
def test_a_search_is_named_for_every_task(task: str, model: str) -> None:
    settings = NAMED[search_of({"datasets": task, "language_model": model})]
    assert settings["search_stage"] and settings["datasets"] == [task]
    offered = {one["language_model"] for one in NAMED.values() if one["datasets"] == [task]}
    assert settings["language_model"] == model or model not in offered


def test_names_are_those_of_the_tables() -> None:
    assert all(RULES["use_adapter"][0](kind) for kind in ADAPTERS)
    assert set(SEARCH_RULES) == set(search.RULES)
    assert RULES["task"].what == f"one of {', '.join(SCORERS)}"
    assert set(TASK_NAMES) == set(TASKS)
    assert {settings["language_model"] for settings in NAMED.values()} <= set(LANGUAGE_MODELS)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_turns_any_experiment_into_a_small_one(name: str) -> None:
    config = check(resolve(name, "shapes"))
    family = name.split("_")[2]
    assert config["tokenizer"] == str(SHAPES_MODELS / family)
    searching, adapters = "search" in name, family == "llama"
    given = (
        SHAPES
        | (SHAPES_SEARCH if searching else SHAPES_ADAPTERS if adapters else {})
        | (SHAPES_VQA_SEARCH if searching and name.endswith("vqa") else {})
        | {"tokenizer": config["tokenizer"]}
    )
    assert {key: config[key] for key in given} == given
    assert config["search_stage"] == searching
    assert config["use_adapter"] == (searching or adapters)


def test_what_shapes_gives_depends_on_the_command_line_too() -> None:
    rates = {}
    for adapters in (True, False):
        rates[adapters] = resolve("dvp_adaption_bert_vqa", "shapes", use_adapter=adapters)["learning_rate"]
    assert rates == {True: SHAPES_ADAPTERS["learning_rate"], False: SHAPES["learning_rate"]}
    assert resolve("dvp_search_bert_vqa", "shapes", kab="published", learning_rate=1)["kab"] == "published"
    assert resolve("dvp_search_bert_vqa")["kab"] == "published"
    assert resolve("dvp_search_llama_sqa", "shapes")["learning_rate"] == SHAPES_SCIENCE_QA_SEARCH["learning_rate"]
    assert resolve("dvp_adaption_llama_sqa", "shapes")["learning_rate"] == SHAPES_SCIENCE_QA["learning_rate"]


def test_the_later_named_config_wins_and_the_command_line_beats_both() -> None:
    assert resolve("dvp_search_llama_vqa", "shapes")["batch_size"] == SHAPES_SEARCH["batch_size"]
    assert resolve("shapes", "dvp_search_llama_vqa")["batch_size"] == 128
    assert resolve("shapes", "dvp_search_llama_vqa", batch_size=32)["batch_size"] == 32


@pytest.mark.parametrize("task", TASKS)
def test_datasets_is_a_name_or_a_list_of_one(task: str, good: dict[str, Any]) -> None:
    assert check(good | {"datasets": task})["datasets"] == task
    assert check(good | {"datasets": [task]})["datasets"] == task


def test_t5_in_half_precision_is_refused_since_it_overflows() -> None:
    with pytest.raises(UserError, match="overflow"):
        check(resolve("dvp_adaption_t5_vqa", per_gpu_batchsize=256, precision=16))


@pytest.mark.parametrize(
    "words, nearest",
    [
        (["with", "dvp_search_bert_vqb"], "dvp_search_bert_vqa"),
        (["with", "dvp_serach_t5_gqa", "per_gpu_batchsize=256"], "dvp_search_t5_gqa"),
        (["with", "dvp_search_bert_vqa", "per_gpu_batch_size=256"], "per_gpu_batchsize"),
        (["with", "dvp_search_bert_vqa", "learing_rate=1e-3"], "learning_rate"),
        (["print_config", "with", "shaps"], "shapes"),
        (["with", "dvp_adaption_bert_vqa", "per_gpu_batchsize=256", "datasets=vqa2"], "vqa, gqa, snli_ve"),
        (["with", "dvp_adaption_bert_vqa", "per_gpu_batchsize=256", "test_only=Ture"], "True, False"),
        (["with", "dvp_adaption_bert_vqa", "per_gpu_batchsize=256", "language_model=BART"], "BERT"),
        (["with", "dvp_adaption_bert_vqa", "num_gpus=0"], "per_gpu_batchsize"),
        (["with", "dvp_adaption_bert_vqa", "per_gpu_batchsize=256", "num_gpus=0", "precision=16"], "bf16"),
    ],
)
def test_mistyped_words_are_refused_with_the_right_one(
    words: list[str], nearest: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = refused(*words)
    assert nearest in sentence
    assert len(sentence.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []  # nothing was started


TASKS_AS_LISTS = [["vqa"], ("vqa",)]
VALUES = [
    None, True, False, 0, 1, 2, 3, 1000, -1, 2**40, 10**400, 0.0, 0.5, 1.0, 1.5, 1e3, nan, inf, -inf, "", "abc", "vqa",
    "auto", "all", "1", "true", ".", "a/b", "a\0b", [], ["abc"], ["vqa", "gqa"], *TASKS_AS_LISTS, {}, {"a": 1}, b"a",
    1j, {1},
]  # fmt: skip
WHOLE, NUMBERS = [0, 1, 2, 3, 1000], [0, 1, 2, 3, 1000, 0.0, 0.5, 1.0, 1.5, 1e3]
WORDS = [*WHOLE, "abc", "vqa", "auto", "all", "1", "true"]
PATHS = [*WORDS, ".", "a/b"]
# Which of VALUES a setting takes; all others must be refused.
TAKEN: dict[str, list[Any]] = {
    **dict.fromkeys(("as_published", "search_stage", "test_only", "use_adapter", "fast_dev_run"), [True, False]),
    **dict.fromkeys(
        ("bucket_by_length", "use_caption", "turn_pictures", "gradient_checkpointing", "compile"), [True, False]
    ),
    "allow_missing_images": [True, False],
    "exp_name": WORDS,
    **dict.fromkeys(("log_dir", "clip_model", "tokenizer"), PATHS),
    **dict.fromkeys(("data_root", "raw_root", "predictions", "annotations", "questions"), ["", *PATHS]),
    **dict.fromkeys(("image", "ask_from", "to", "heatmap"), ["", *PATHS]),
    **dict.fromkeys(("question", "choices", "hint"), ["", *PATHS, "a\0b"]),
    **dict.fromkeys(("json", "merge", "with_base", "overwrite", "private"), [True, False]),
    "push_to": ["", "a/b"],
    "license": [word for word in WORDS if isinstance(word, str)],
    "host": [word for word in WORDS if isinstance(word, str)],
    "port": [1, 2, 3, 1000],
    **dict.fromkeys(("load_path", "resume_from"), [None, "", *PATHS]),
    "seed": WHOLE,
    "datasets": ["vqa", *TASKS_AS_LISTS],
    "task": ["vqa"],
    **dict.fromkeys(("precision", "backbone_dtype", "strategy", "image_tokens"), ["auto"]),
    **dict.fromkeys(
        ("language_model", "test_split", "image_tokens_on", "prompt_format", "answer_by", "optim_type", "kab"), []
    ),
    **dict.fromkeys(("quantize", "logger"), [None]),
    "start_from": [None],
    "save_every": [n for n in WHOLE if n],
    "layers": [*WHOLE, "all"],
    "seeds": WHOLE,
    "metric": [],
    "runs": ["", *PATHS, ["abc"], ["vqa", "gqa"], *TASKS_AS_LISTS],
    "report": [True, False],
    "level": [None, *(number for number in NUMBERS if number <= 100)],
    "max_text_len": [3, 1000],
    "insert_layer": [*WHOLE, "auto"],
    "search_sample": [1, 2, 3, 1000, "all"],
    "max_steps": [None, 1, 2, 3, 1000],
    **dict.fromkeys(("per_gpu_batchsize", "search_warmup_steps", "rest_val_images"), WHOLE),
    **dict.fromkeys(("num_gpus", "num_workers"), WHOLE),
    **dict.fromkeys(("image_size", "prompt_tokens", "max_new_tokens", "num_heads"), [1, 2, 3, 1000]),
    **dict.fromkeys(("max_epoch", "batch_size", "top", "adapter_rank"), [1, 2, 3, 1000]),
    "adapter_targets": ["abc", "vqa", "auto", "all", "1", "true", ["abc"], ["vqa", "gqa"], *TASKS_AS_LISTS],
    "lora_alpha": [number for number in NUMBERS if number],
    **dict.fromkeys(("min_answer_count", "num_nodes", "cpu_processes"), [1, 2, 3, 1000]),
    **dict.fromkeys(("learning_rate", "lr_mult", "weight_decay", "end_lr"), NUMBERS),
    "decay_power": [0, 1, 2, 3, 0.0, 0.5, 1.0, 1.5],
    **dict.fromkeys(("drop_rate", "lora_dropout"), [0, 0.0, 0.5]),
    "warmup_steps": [*WHOLE, 0.0, 0.5, 1.0],
    "val_check_interval": [0.5, 1.0],
}


def among(value: Any, values: list[Any]) -> bool:
    return any(type(value) is type(other) and value == other for other in values)


def test_every_setting_has_a_rule_and_a_meaning() -> None:
    assert set(ex.settings) == set(RULES) == set(TAKEN)
    assert not set(ex.settings) - set(ex.settings.docs)
    check_values(ex.settings)


@pytest.mark.parametrize("key", TAKEN)
def test_every_value_is_taken_by_the_rule_or_refused_in_one_sentence(key: str, good: dict[str, Any]) -> None:
    for value in VALUES:
        if among(value, TAKEN[key]):
            check_value(key, value)
            continue
        for refuse in (lambda v=value: check_value(key, v), lambda v=value: check(good | {key: v})):
            with pytest.raises(UserError, match=f"^{key}=") as refusal:
                refuse()
            assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("key", TAKEN)
def test_every_wrong_value_that_can_be_typed_is_refused_before_anything_runs(
    key: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (None, True, -1, 2, 1.5, "1e999", "abc", "''", [], {}, {"a": 1}, "{[]:1}"):
        word = str(value)
        read = {"1e999": inf, "''": ""}.get(word, value)
        if not among(read, TAKEN[key]) and not (key in TEXTS and word in ("-1", "1.5", "1e999")):
            sentence = refused("with", "dvp_adaption_bert_vqa", f"{key}={word}")
            assert len(sentence.strip().splitlines()) == 1 and (key in sentence or word in sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "key, value, hint",
    [
        ("warmup_steps", 1e3, "write 1000"),
        ("max_steps", 1e3, "write 1000"),
        ("val_check_interval", 1, "write 1.0"),
        ("use_adapter", 1, "write True"),
        ("use_adapter", "true", "write True"),
        ("learning_rate", "1e-3", "write 0.001"),  # as YAML reads it
        ("max_steps", "none", "write None"),
        ("language_model", "bert", "write 'BERT'"),
        ("strategy", "dp", "auto, ddp, "),
        ("data_root", 1.5, "write '1.5'"),
    ],
)
def test_a_refusal_says_what_would_do(key: str, value: Any, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        check_value(key, value)


def test_strategies_are_lightnings() -> None:
    from pytorch_lightning.strategies import StrategyRegistry

    assert set(STRATEGIES) - {"auto"} <= set(StrategyRegistry.available_strategies())


def test_numbers_that_name_folders_become_words_and_nothing_has_one_spelling(good: dict[str, Any]) -> None:
    config = check(good | {"log_dir": 1, "tokenizer": 7, "load_path": None, "resume_from": ""})
    assert (config["log_dir"], config["tokenizer"], config["load_path"], config["resume_from"]) == ("1", "7", "", None)


@pytest.mark.parametrize("key", sorted(rules.PATHS))
def test_a_tilde_in_a_path_is_the_home_folder(key: str, good: dict[str, Any]) -> None:
    assert fill(good | {key: "~/here"})[key] == str(Path.home() / "here")
    assert fill(good | {key: "~nobody-of-this-name/here"})[key] == "~nobody-of-this-name/here"


@pytest.mark.parametrize(
    "settings, passes",
    [
        ({"batch_size": 256, "per_gpu_batchsize": 256}, 1),
        ({"batch_size": 256, "per_gpu_batchsize": 64}, 4),
        ({"batch_size": 256, "per_gpu_batchsize": 32, "num_gpus": 2, "num_nodes": 2}, 2),
        ({"batch_size": 256, "per_gpu_batchsize": 32, "num_gpus": 0, "cpu_processes": 2}, 4),
        ({"batch_size": 256, "per_gpu_batchsize": 96}, None),
        ({"batch_size": 64, "per_gpu_batchsize": 128}, None),
        ({"batch_size": 256, "per_gpu_batchsize": 64, "num_gpus": 3}, None),
    ],
)
def test_accumulation_makes_up_the_batch_or_is_refused(settings: dict, passes: int | None, good: dict) -> None:
    if passes:
        assert check(good | settings)["accumulate"] == passes
        return
    with pytest.raises(UserError, match=f"batch_size={settings['batch_size']} .*{settings['per_gpu_batchsize']}"):
        check(good | settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"test_only": True}, "load_path"),
        ({"load_path": "a", "resume_from": "b"}, "load_path"),
        ({"load_path": "a", "start_from": "search"}, "start_from=search and a checkpoint"),
        ({"resume_from": "a", "start_from": "search"}, "start_from=search and a checkpoint"),
        ({"search_stage": True, "start_from": "search"}, "this is a search"),
        ({"metric": "speed"}, "level=<percent>"),
        ({"learning_rate": 0}, "decay_power=constant"),
        ({"use_adapter": "prefix"}, "use_adapter=prefix is not offered, .* take lora, dora or ia3"),
        ({"quantize": "8bit", "use_adapter": "dora", "num_gpus": 0}, "quantize=8bit with use_adapter=dora needs a GPU"),
        ({"quantize": "8bit"}, "quantize=8bit is for a frozen language model, .* add use_adapter=True or lora"),
        ({"strategy": "deepspeed", "num_gpus": 0}, "needs a GPU"),
        ({"strategy": "fsdp"}, "add use_adapter=True"),
        ({"per_gpu_batchsize": 0}, "how many rows fit"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict, message: str, good: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=message):
        check(good | settings)
