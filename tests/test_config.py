"""The settings: the published values, and no wrong word or value that starts a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvp import search
from dvp.backbones import BACKBONES
from dvp.config import (
    EXPERIMENTS,
    LANGUAGE_MODELS,
    RULES,
    SEARCH_RULES,
    SHAPES,
    SHAPES_ADAPTERS,
    SHAPES_MODELS,
    SHAPES_SCIENCE_QA,
    SHAPES_SCIENCE_QA_SEARCH,
    SHAPES_SEARCH,
    TASK_NAMES,
    check,
    ex,
)
from dvp.errors import UserError
from dvp.tasks import TASKS

PUBLISHED = json.loads((Path(__file__).parent / "published_configs.json").read_text(encoding="utf-8"))
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


def test_names_of_tasks_language_models_and_search_rules_are_those_of_the_tables() -> None:
    assert set(SEARCH_RULES) == set(search.RULES)
    assert set(TASK_NAMES) == set(TASKS)
    assert {name.lower() for name in LANGUAGE_MODELS} == set(BACKBONES)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_turns_any_experiment_into_a_small_one(name: str) -> None:
    config = check(resolve(name, "shapes"))
    family = name.split("_")[2]
    assert config["tokenizer"] == str(SHAPES_MODELS / family)
    searching, adapters = "search" in name, family == "llama"
    given = (
        SHAPES
        | (SHAPES_SEARCH if searching else SHAPES_ADAPTERS if adapters else {})
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
        (["with", "dvp_adaption_bert_vqa"], "per_gpu_batchsize"),
        (["with", "dvp_adaption_bert_vqa", "per_gpu_batchsize=256", "num_gpus=0", "precision=16"], "bf16"),
        (["with", "dvp_adaption_t5_vqa", "per_gpu_batchsize=256", "precision=16"], "overflow"),
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


WRONG = {
    **dict.fromkeys(RULES, ("nonsense", [])),
    **{key: ("nonsense", -1) for key, (holds, _) in RULES.items() if holds(1) and not holds(-1)},
    "insert_layer": ("nonsense", -1, 1.5),
    "per_gpu_batchsize": (0, -1, "nonsense", 1.5),
    "batch_size": (0, 2.0),
    "precision": (8, "fp32"),
    "val_check_interval": (0.0, 1.5, 2),
}


@pytest.mark.parametrize("key, value", [(key, value) for key, values in WRONG.items() for value in values])
def test_every_rule_refuses_wrong_values(key: str, value: Any, good: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=key):
        check(good | {key: value})


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
        ({"learning_rate": 0}, "decay_power=constant"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict, message: str, good: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=message):
        check(good | settings)
