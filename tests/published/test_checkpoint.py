"""What a published checkpoint tells of itself: taken where nothing was said, refused where something else was."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_file import HYPER_PARAMETERS, published_state, write_lightning

from dvp.build import build_data, build_module
from dvp.errors import UserError
from dvp.module import DVPModule
from dvp.published.checkpoint import read_lightning
from dvp.published.classification import load_published
from dvp.runs.trainer import build_trainer

THERE = {"insert_layer": 2, "num_heads": 8}  # neither is the default, nor what the tiny folders take elsewhere
STATE = {"vqa_classifier.3.weight": torch.ones(5, 2)}


def published_config(config: dict[str, Any]) -> dict[str, Any]:
    """The published code's settings of a run of ours."""
    same = ("language_model", "search_stage", "insert_layer", "use_adapter", "num_heads", "image_size", "max_text_len")
    tasks = {task: int(config["datasets"] == task) for task in ("vqa", "gqa", "snli_ve")}
    weights = {key: config[key] for key in ("tokenizer", "clip_model")}
    return {key: config[key] for key in same} | weights | {"loss_names": tasks, "datasets": [config["datasets"]]}


@pytest.fixture
def published(
    configure: Callable[..., dict[str, Any]], tmp_path: Path
) -> Callable[..., tuple[str, dict[str, Any], DVPModule]]:
    """Makes a published checkpoint on the tiny folders; returns its file, our config for it, and what is in it."""

    def make(experiment: str, **changes: Any) -> tuple[str, dict[str, Any], DVPModule]:
        config = configure(experiment, **THERE | {"as_published": True} | changes)
        pl.seed_everything(5)
        module = build_module(config, build_data(config))
        with torch.no_grad():
            for parameter in module.model.parameters():
                parameter += 0.2 * torch.randn(parameter.shape)
        file = write_lightning(tmp_path / "last.ckpt", published_state(module), published_config(config))
        return file, config, module

    return make


RUN = ("data_root", "log_dir", "num_gpus", "num_workers", "batch_size", "per_gpu_batchsize", "max_steps")
RUN += ("image_tokens", "image_size")  # what is of the machine and the run, not of the checkpoint


def typed(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {key: config[key] for key in RUN} | more


@pytest.mark.parametrize("form", HYPER_PARAMETERS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
@pytest.mark.parametrize("search", [False, True], ids=["adaption", "search"])
def test_settings_are_read_however_they_lie(form: str, zipped: bool, search: bool, tmp_path: Path) -> None:
    config = {
        "loss_names": {"vqa": 1, "gqa": 0, "snli_ve": 0}, "language_model": "T5", "search_stage": search,
        "insert_layer": 3, "use_adapter": True, "num_heads": 12, "image_size": 224, "max_text_len": 16, "seed": 0,
    }  # fmt: skip
    path = write_lightning(tmp_path / "last.ckpt", STATE, config, form=form, zipped=zipped)
    for plainly, error in ((True, pickle.UnpicklingError), (False, ModuleNotFoundError)):
        with pytest.raises(error):
            torch.load(path, weights_only=plainly)
    checkpoint = read_lightning(path)
    wanted = {"datasets": "vqa"} | {key: value for key, value in config.items() if key not in ("loss_names", "seed")}
    if search:
        del wanted["insert_layer"]
    assert checkpoint.settings == wanted
    assert (checkpoint.epoch, checkpoint.global_step) == (10, 1000)
    assert torch.equal(checkpoint.state_dict["vqa_classifier.3.weight"], torch.ones(5, 2))
    assert (checkpoint.num_answers("vqa"), checkpoint.num_answers("gqa")) == (5, None)


def test_llamas_texts_were_not_cut_whatever_its_settings_say(tmp_path: Path) -> None:
    config = {"language_model": "LLAMA", "max_text_len": 16, "use_adapter": True}
    settings = read_lightning(write_lightning(tmp_path / "last.ckpt", STATE, config)).settings
    assert settings == {"language_model": "LLAMA", "use_adapter": True}


@pytest.mark.parametrize(
    "odd",
    [{"insert_layer": "2"}, {"num_heads": True}, {"loss_names": {"vqa": 1, "gqa": 1}}, {"loss_names": 3}],
    ids=str,
)
def test_a_setting_that_is_none_is_not_taken(odd: dict[str, Any], tmp_path: Path) -> None:
    assert read_lightning(write_lightning(tmp_path / "last.ckpt", STATE, odd)).settings == {}


def test_weights_of_a_folder_elsewhere_are_not_looked_for(tmp_path: Path) -> None:
    for name, taken in (
        ("t5-base", True),
        ("google/t5-v1_1-base", True),
        (str(tmp_path), True),
        ("/home/me/t5", False),
    ):
        path = write_lightning(tmp_path / "last.ckpt", STATE, {"tokenizer": name, "clip_model": "ViT-B/16"})
        told = {"tokenizer": name} if taken else {}
        assert read_lightning(path).as_config() == told | {"clip_model": "ViT-B/16", "as_published": True}


FAMILIES = pytest.mark.parametrize("family", ["bert", "t5", "llama"])


@FAMILIES
@pytest.mark.parametrize("named", [True, False], ids=["experiment", "nothing"])
def test_nothing_need_be_typed(
    family: str, named: bool, published: Callable, command: Callable[..., None], tmp_path: Path, capsys: Any
) -> None:
    experiment = f"dvp_adaption_{family}_gqa"
    changes = {"use_adapter": True, "max_text_len": 9}
    if named and family == "llama":
        changes["num_heads"] = 16  # what its experiment says
    file, config, module = published(experiment, **changes)
    words = (experiment,) if named else ()
    more = {key: config[key] for key in ("tokenizer",)} if named else {}
    command("with", *words, **typed(config, test_only=True, load_path=file, **more))
    said = capsys.readouterr().out
    assert f"insert_layer=2 use_adapter=True num_heads={config['num_heads']}" in said
    assert ("not cut here either" in said) == (family == "llama")
    (written,) = (tmp_path / "result").glob("gqa_submit_last.json")
    about = json.loads(written.with_suffix(".about.json").read_text())
    assert about["as_published"] is True
    wanted = {key: config[key] for key in ("insert_layer", "num_heads", "use_adapter", "language_model", "tokenizer")}
    assert {key: about["config"][key] for key in wanted} == wanted
    assert about["config"]["max_text_len"] == (16 if family == "llama" else 9)  # of a LLaMA it says nothing
    answers = [row["prediction"] for row in sorted(json.loads(written.read_text()), key=lambda row: row["questionId"])]
    assert answers == expected_answers(config, module, tmp_path)


def expected_answers(config: dict[str, Any], module: DVPModule, folder: Path) -> list[str]:
    """What the module answers that the checkpoint was made of."""
    module.predictions_path = folder / "expected.json"
    data = build_data(config | {"test_only": True})
    build_trainer(config | {"log_dir": str(folder / "other")}, module.monitor).test(module, datamodule=data)
    return [row["prediction"] for row in json.loads(module.predictions_path.read_text())]


def test_a_search_goes_on_as_one(published: Callable, command: Callable[..., None], tmp_path: Path) -> None:
    file, config, _ = published("dvp_search_bert_gqa")
    command("with", **typed(config, load_path=file))
    assert list((tmp_path / "result").rglob("search.json"))


OTHERWISE = {
    "insert_layer": ("dvp_adaption_bert_gqa", {"insert_layer": 1}, "insert_layer is 2 there and 1 here"),
    "num_heads": ("dvp_adaption_bert_gqa", {"num_heads": 4}, "num_heads is 8 there and 4 here"),
    "use_adapter": ("dvp_adaption_bert_gqa", {"use_adapter": True}, "use_adapter is False there and True here"),
    "PEFT's": ("dvp_adaption_bert_gqa", {"use_adapter": "lora"}, "use_adapter is False there and lora here"),
    "max_text_len": ("dvp_adaption_bert_gqa", {"max_text_len": 9}, "max_text_len is 16 there and 9 here"),
    "task": ("dvp_adaption_bert_vqa", {}, "datasets is gqa there and vqa here"),
    "model": ("dvp_adaption_t5_gqa", {}, "language_model is BERT there and T5 here"),
    "stage": ("dvp_search_bert_gqa", {}, "search_stage is False there and True here"),
    "two": (
        "dvp_adaption_bert_gqa",
        {"insert_layer": 0, "num_heads": 4},
        "insert_layer is 2 there and 0 here; num_heads is 8 there and 4 here. Type insert_layer=2 num_heads=8,",
    ),
}


@pytest.mark.parametrize("kind", OTHERWISE)
def test_what_was_said_otherwise_is_refused_with_both_values(
    kind: str, published: Callable, refused: Callable[..., str], language_models: dict[str, str]
) -> None:
    experiment, other, message = OTHERWISE[kind]
    file, config, _ = published("dvp_adaption_bert_gqa")
    settings = typed(config, load_path=file, tokenizer=language_models[experiment.split("_")[2]], **other)
    assert message in refused("with", experiment, **settings)


def test_other_adapters_than_published_are_refused_where_it_does_not_tell(tmp_path: Path) -> None:
    checkpoint = read_lightning(write_lightning(tmp_path / "last.ckpt", STATE, {}))
    with pytest.raises(UserError, match="has published adapters or none, and here use_adapter is lora: type"):
        checkpoint.refuse_other({"use_adapter": "lora"})
    checkpoint.refuse_other({"use_adapter": True})


@pytest.mark.parametrize(
    "inside, experiment, message",
    [
        ("dvp_adaption_t5_gqa", "dvp_adaption_bert_gqa", "language_model is T5 there and BERT here"),
        ("dvp_search_bert_gqa", "dvp_adaption_bert_gqa", "search_stage is True there and False here"),
        ("dvp_adaption_bert_snli_ve", "dvp_adaption_bert_vqa", "datasets is snli_ve there and vqa here"),
    ],
)
def test_an_experiment_says_what_its_name_says(
    inside: str, experiment: str, message: str, published: Callable, refused: Callable[..., str], language_models: dict
) -> None:
    """Also where that is the default."""
    file, config, _ = published(inside)
    settings = typed(config, load_path=file, tokenizer=language_models["bert"])
    assert message in refused("with", experiment, **settings)


@pytest.mark.parametrize("other", [{"insert_layer": 1}, {"num_heads": 4}], ids=str)
def test_a_module_of_another_function_is_left_alone(
    other: dict[str, int], published: Callable, configure: Callable[..., dict[str, Any]]
) -> None:
    """K and heads leave no trace in the weights."""
    file, config, _ = published("dvp_adaption_bert_gqa")
    config = configure("dvp_adaption_bert_gqa", **THERE | {"as_published": True} | other)
    module = build_module(config, build_data(config))
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    with pytest.raises(UserError, match="was trained otherwise"):
        load_published(file, module)
    assert all(torch.equal(before[name], parameter) for name, parameter in module.named_parameters())


def test_auto_takes_ks_word(published: Callable, configure: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """insert_layer=auto is what the newest search found, and that has to be the checkpoint's."""
    file, _, _ = published("dvp_adaption_bert_gqa")
    checkpoint = read_lightning(file)
    checkpoint.refuse_other({"insert_layer": "auto"})
    with pytest.raises(UserError, match="insert_layer"):
        checkpoint.refuse_other({"insert_layer": 3})


def test_what_a_checkpoint_does_not_tell_is_said(published: Callable, tmp_path: Path, capsys: Any) -> None:
    file, _, module = published("dvp_adaption_bert_gqa")
    torch.save({"state_dict": read_lightning(file).state_dict}, tmp_path / "weights.ckpt")
    load_published(str(tmp_path / "weights.ckpt"), module)
    assert "does not tell, and nothing can check, insert_layer=2 and num_heads=8." in capsys.readouterr().out


def test_wrong_values_are_found_before_the_run_is_written_down(
    published: Callable, refused: Callable[..., str], tmp_path: Path
) -> None:
    file, config, _ = published("dvp_adaption_t5_gqa")
    settings = typed(config, load_path=file, precision=16)
    assert "precision=16 makes T5's activations overflow" in refused("with", **settings)
    assert not (tmp_path / "result").exists()


@FAMILIES
@pytest.mark.parametrize("as_published", [False, True])
def test_llamas_texts_are_cut_unless_as_published(
    family: str, as_published: bool, configure: Callable[..., dict[str, Any]]
) -> None:
    config = configure(f"dvp_adaption_{family}_gqa", as_published=as_published, max_text_len=8)
    data = build_data(config)
    row = {"labels": [0], "scores": [1.0], "question_id": "1", "text": "is there a red circle " * 9}
    width = data.reader.collate([row, row])["input_ids"].shape[1]
    assert (width > 40) if family == "llama" and as_published else (width == 8)
