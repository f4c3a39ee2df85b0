"""strategy=fsdp: each of two processes holds half of the frozen matrices, and learns and answers what one does."""

import functools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny_world import fit, rows_of, write_table
from torch.distributed.tensor import DTensor
from two_processes import in_two_processes

from dvp.checkpoints import read_checkpoint
from dvp.runs import devices, sharded

FAMILIES = ("bert", "t5", "llama")


class Held(pl.Callback):
    """Writes down how much of the language model's matrices this process holds, and what came out."""

    def __init__(self, place: Path):
        self.place = place

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        matrices = [one for one in pl_module.model.backbone.parameters() if isinstance(one, DTensor)]
        self.share = sum(one.to_local().numel() for one in matrices) / max(1, sum(one.numel() for one in matrices))
        assert not any(one.requires_grad for one in matrices)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        torch.save({"share": self.share, "metrics": metrics}, self.place / f"{trainer.global_rank}.pt")


def _fit(config: dict[str, Any], place: Path) -> None:
    fit(config, Held(place))


def outcome(config: dict[str, Any], place: Path) -> tuple[list[float], dict[str, float], dict[str, torch.Tensor]]:
    """The share that each process held, the metrics and the weights."""
    place.mkdir()
    in_two_processes(_fit, config | {"log_dir": str(place / "result")}, place)
    found = [torch.load(place / f"{rank}.pt") for rank in (0, 1)]
    (last,) = place.rglob("last.ckpt")
    return [one["share"] for one in found], found[0]["metrics"], read_checkpoint(str(last))[0]


@pytest.fixture
def uneven(configure: Callable[..., dict], tmp_path: Path, data_root: str) -> Callable[..., dict[str, Any]]:
    """A config of two processes, one of which has a batch more to evaluate."""

    def make(experiment: str, **changes: Any) -> dict[str, Any]:
        data = tmp_path / "data"
        if not data.exists():
            data.mkdir()
            for file in Path(data_root).iterdir():
                (data / file.name).symlink_to(file)
            (data / "vqav2_rest_val.arrow").unlink()
            write_table(data / "vqav2_rest_val.arrow", rows_of("vqa", "rest_val", images=3, questions=3))
        options = {"batch_size": 4, "per_gpu_batchsize": 2, "max_steps": 3, "data_root": str(data)}
        return configure(experiment, cpu_processes=2, **options | changes)

    return make


@pytest.mark.two_processes
@pytest.mark.parametrize(
    "family, kind", [*((family, True) for family in FAMILIES), ("bert", "lora"), ("bert", "ia3"), ("bert", "frozen")]
)
def test_pieces_learn_and_answer_what_whole_weights_do(family: str, kind: bool | str, uneven, tmp_path: Path) -> None:
    config = uneven(f"dvp_adaption_{family}_vqa", use_adapter=kind, learning_rate=1e-3, max_steps=2)
    whole = outcome(config | {"strategy": "ddp"}, tmp_path / "ddp")
    pieces = outcome(config | {"strategy": "fsdp"}, tmp_path / "fsdp")
    assert whole[0] == [0, 0] and sum(pieces[0]) == pytest.approx(1) and max(pieces[0]) < 0.6
    assert whole[1].keys() == pieces[1].keys()
    assert all(pieces[1][name] == pytest.approx(value, abs=1e-4) for name, value in whole[1].items())
    assert whole[2].keys() == pieces[2].keys()
    assert max((whole[2][name] - pieces[2][name]).abs().max().item() for name in whole[2]) < 1e-6


@pytest.mark.two_processes
def test_a_search_is_gone_on_with_and_trained_from_in_pieces(uneven, tmp_path: Path) -> None:
    config = uneven("dvp_search_bert_vqa", use_adapter=True, strategy="fsdp", max_steps=2)
    outcome(config, tmp_path / "search")
    (last,) = (tmp_path / "search").rglob("last.ckpt")
    _, _, weights = outcome(config | {"max_steps": 3, "resume_from": str(last)}, tmp_path / "longer")
    assert any(name.startswith("model.compressors.2.") for name in weights)
    alone = uneven("dvp_adaption_bert_vqa", use_adapter=True, insert_layer=1, load_path=str(last))
    fit(alone | {"cpu_processes": 1, "devices": 1, "accumulate": 2})  # the checkpoint is that of any run


@pytest.mark.two_processes
def test_without_an_even_number_of_batches_the_processes_would_wait_for_each_other(
    uneven, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded.Even, "_accompany", lambda *_: None)
    patient = functools.partial(sharded.ShardedFrozen, timeout=timedelta(seconds=3))
    monkeypatch.setattr(devices, "ShardedFrozen", patient)
    config = uneven("dvp_adaption_bert_vqa", use_adapter=True, strategy="fsdp", max_steps=1)
    with pytest.raises(AssertionError):
        outcome(config, tmp_path / "fsdp")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"use_adapter": False}, "strategy=fsdp cuts the matrices of a frozen language model"),
        ({"use_adapter": True, "compile": True}, "leave quantize and compile out"),
        ({"use_adapter": "dora"}, "strategy=fsdp is not offered with use_adapter=dora"),
    ],
)
def test_what_is_not_frozen_is_not_cut(changes: dict[str, Any], words: str, refused, tiny) -> None:
    settings = tiny("dvp_adaption_bert_vqa", strategy="fsdp", cpu_processes=2)
    assert words in refused("with", "dvp_adaption_bert_vqa", **settings | changes)


def test_scienceqas_devices_write_texts_of_their_own_length(refused, science, tmp_path: Path) -> None:
    settings = science[1] | {"log_dir": tmp_path, "num_gpus": 0, "num_workers": 0, "num_heads": 4, "strategy": "fsdp"}
    words = refused("with", "dvp_adaption_llama_sqa", **settings | {"batch_size": 4, "per_gpu_batchsize": 4})
    assert "strategy=fsdp is not offered for scienceqa: take strategy=ddp" in words
