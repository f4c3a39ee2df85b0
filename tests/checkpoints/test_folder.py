"""Checkpoints hold exactly what was trained, come back exactly, and let a run go on as if it had never stopped."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file, save_file
from tiny_world import NAMED_FAMILIES, fit

from dvp.build import build_data, build_module
from dvp.checkpoints import TrainedOnly, read_checkpoint, trained_state
from dvp.errors import UserError
from dvp.files import write_checksums

RUNS = ["dvp_search_bert_vqa", "dvp_search_bert_gqa", "dvp_adaption_t5_snli_ve", "dvp_adaption_llama_vqa"]
RUNS += [f"dvp_adaption_{family}_vqa" for family in NAMED_FAMILIES if not any(f"_{family}_" in run for run in RUNS)]


def checkpoints(config: dict) -> dict[str, Path]:
    found = {path.stem: path for path in Path(config["log_dir"]).rglob("*.ckpt")}
    return {name: path for name, path in found.items() if not name.startswith("last-")}  # what `last` links to


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("experiment", RUNS)
def test_a_checkpoint_is_what_was_trained_and_comes_back_exactly(experiment: str, configure) -> None:
    config = configure(experiment)
    module = fit(config).lightning_module
    found = checkpoints(config)
    (best,) = set(found) - {"last"}
    assert re.fullmatch(r"epoch=[01]-step=[12]", best)
    weights, description = read_checkpoint(str(found["last"]))
    trained = trained_state(module)
    assert_same(weights, {name: parameter.detach() for name, parameter in trained.items()})
    assert description["answers"] == module.answers
    assert description["config"]["batch_size"] == 8

    loaded = build_module(config | {"load_path": str(found["last"])}, build_data(config))
    assert_same(trained_state(loaded), weights)
    for name, parameter in loaded.named_parameters():  # the frozen ones come from their own folders
        torch.testing.assert_close(parameter, dict(module.named_parameters())[name])


def test_there_is_no_pickle_in_a_checkpoint(configure) -> None:
    config = configure("dvp_search_bert_vqa")
    fit(config)
    for folder in checkpoints(config).values():
        for path in folder.iterdir():
            assert path.suffix in (".json", ".safetensors")
            assert not zipfile.is_zipfile(path)
            json.loads(path.read_text()) if path.suffix == ".json" else load_file(path)


def test_the_last_checkpoint_is_the_last_one(configure) -> None:
    config = configure("dvp_adaption_bert_vqa", max_steps=None, max_epoch=3, learning_rate=0.0, decay_power="constant")
    fit(config)  # with a rate of 0 no later epoch is better than the first
    found = checkpoints(config)
    assert set(found) == {"epoch=0-step=2", "last"}
    step = json.loads((found["last"] / "training.json").read_text())["items"]
    assert dict(step)["global_step"] == 6


class Stop(pl.Callback):
    """Kills the run when the second epoch starts."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("killed")


@pytest.mark.parametrize("experiment, kab", [*((run, "published") for run in RUNS), (RUNS[0], "mean")])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    experiment: str, kab: str, configure, tmp_path: Path
) -> None:
    config = configure(experiment, max_steps=None, max_epoch=3, batch_size=4, per_gpu_batchsize=2, kab=kab)
    whole = fit(config | {"log_dir": str(tmp_path / "whole")}).lightning_module
    with pytest.raises(RuntimeError, match="killed"):
        fit(config, Stop())
    last = str(checkpoints(config)["last"])
    resumed = fit(config | {"resume_from": last}).lightning_module
    assert_same(trained_state(resumed), trained_state(whole))
    if whole.bandit:
        assert resumed.bandit.summary() == whole.bandit.summary()
        assert len(whole.bandit.trace) == whole.trainer.global_step // whole.bandit.every


DIFFERENT = [
    ({"insert_layer": 1}, "insert_layer is 0 there and 1 here"),
    ({"use_adapter": True}, "use_adapter is False there and True here"),
    ({"as_published": True}, "as_published"),
]


@pytest.fixture
def trained(configure) -> tuple[dict, Path]:
    config = configure("dvp_adaption_bert_vqa", max_steps=1)
    fit(config)
    return config, checkpoints(config)["last"]


@pytest.mark.parametrize("way", ["load_path", "resume_from"])
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(way: str, trained, configure) -> None:
    config, last = trained
    for changes, message in DIFFERENT:
        with pytest.raises(UserError, match=message):
            fit(config | changes | {way: str(last)})
    for experiment, message in (
        ("dvp_adaption_t5_vqa", "language_model is Bert there and T5 here"),
        ("dvp_adaption_bert_snli_ve", "task is vqa there and snli_ve here.*answers is"),
        ("dvp_search_bert_vqa", "search_stage is False there and True here"),
    ):
        with pytest.raises(UserError, match=message):
            fit(configure(experiment, **{way: str(last)}))


def test_another_vocabulary_or_clip_is_refused(trained, tmp_path: Path) -> None:
    config, last = trained
    data_root = shutil.copytree(config["data_root"], tmp_path / "data")
    (data_root / "vqav2_answers.json").write_text('["no", "yes", "red", "two"]')
    clip_folder = shutil.copytree(config["clip_model"], tmp_path / "clip")
    weights = load_file(clip_folder / "model.safetensors")
    save_file({k: v + 0.01 for k, v in weights.items()}, clip_folder / "model.safetensors", {"format": "pt"})
    for changes, message in (({"data_root": str(data_root)}, "answers"), ({"clip_model": str(clip_folder)}, "frozen")):
        other = config | changes | {"load_path": str(last)}
        with pytest.raises(UserError, match=message):
            build_module(other, build_data(other))


SPOIL: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "There is no checkpoint"),
    "no checkpoint": (lambda folder: (folder / "description.json").unlink(), "no checkpoint of this project"),
    "no weights": (lambda folder: (folder / "weights.safetensors").unlink(), "damaged"),
    "truncated weights": (lambda folder: truncate(folder / "weights.safetensors"), "damaged"),
    "truncated description": (lambda folder: truncate(folder / "description.json"), "damaged"),
    "truncated moments": (lambda folder: truncate(folder / "training.safetensors"), "damaged"),
    "truncated state": (lambda folder: truncate(folder / "training.json"), "damaged"),
    "a flip in the weights": (lambda folder: flip(folder / "weights.safetensors"), "weights.safetensors is not as"),
    "a flip in the moments": (lambda folder: flip(folder / "training.safetensors"), "training.safetensors is not as"),
    "a flip in the state": (lambda folder: flip(folder / "training.json"), "training.json is not as"),
    "a flip in the description": (lambda folder: flip(folder / "description.json"), "description.json is not as"),
    "a flip in the checksums": (lambda folder: flip(folder / "checksums.json", -5), "checksums.json is damaged"),
}


def flip(path: Path, at: int = -9) -> None:
    """Turn the lowest bit of a byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    passes = {"is_last_batch": True, "current": {"processed": 2}}
    described = {"task": "vqa", "language_model": "Bert", "search_stage": False, "frozen": "", "answers": []}
    checkpoint = {
        "state_dict": {"w": torch.randn(3, 4)}, "description": described, "epoch": 1, "global_step": 2,
        "loops": {"fit_loop": {"epoch_loop.batch_progress": passes}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.98)}]}],
    }  # fmt: skip
    TrainedOnly().save_checkpoint(checkpoint, str(tmp_path / "a.ckpt"))
    loaded = TrainedOnly().load_checkpoint(str(tmp_path / "a.ckpt"))
    assert loaded["optimizer_states"] == checkpoint["optimizer_states"]
    assert torch.equal(loaded["state_dict"]["w"], checkpoint["state_dict"]["w"])
    return tmp_path / "a.ckpt"


@pytest.mark.parametrize("fault", SPOIL)
def test_missing_and_damaged_checkpoints_are_refused(fault: str, written: Path) -> None:
    spoil, message = SPOIL[fault]
    spoil(written)
    with pytest.raises(UserError, match=message):
        TrainedOnly().load_checkpoint(str(written))


def test_a_flip_is_unseen_without_the_checksums(written: Path) -> None:
    (written / "checksums.json").unlink()  # as in folders of before there were any
    before = {name: weight.clone() for name, weight in read_checkpoint(str(written))[0].items()}  # no view of the file
    flip(written / "weights.safetensors")
    after = read_checkpoint(str(written))[0]
    assert [name for name, weight in after.items() if not torch.equal(weight, before[name])]


def test_a_failed_save_leaves_the_one_before(written: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold"):
        TrainedOnly().save_checkpoint({"state_dict": {}, "description": {}, "x": object()}, str(written))
    before = read_checkpoint(str(written))[1]
    with pytest.raises(TypeError):
        TrainedOnly().save_checkpoint({"state_dict": {}, "description": {"x": object()}, "epoch": 1}, str(written))
    assert read_checkpoint(str(written))[1] == before
    assert [path.name for path in written.parent.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("change", ["missing", "left over", "misshapen"])
def test_weights_that_do_not_fit_are_listed(change: str, trained) -> None:
    config, last = trained
    weights = load_file(last / "weights.safetensors")
    name = "model.head.answer.bias"
    if change == "misshapen":
        weights[name] = weights[name][:-1].contiguous()
    else:
        tensor = weights.pop(name)
        weights |= {"model.head.other": tensor} if change == "left over" else {}
    save_file(weights, last / "weights.safetensors")
    write_checksums(last)
    with pytest.raises(UserError, match="head.other is not in" if change == "left over" else name):
        build_module(config | {"load_path": str(last)}, build_data(config))
