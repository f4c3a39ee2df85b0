"""A run goes on with the settings that it was given, or is refused with what is in the way."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny_world import fit

from dvp.checkpoints import trained_state
from dvp.config import ex
from dvp.errors import UserError
from dvp.runs.resume import SAME, SAME_WITHIN_AN_EPOCH, TAKEN

CONSTANT = {"decay_power": "constant", "warmup_steps": 0, "max_steps": None}


class Rates(pl.Callback):
    """Notes rate and decay of every group in every update."""

    def __init__(self) -> None:
        self.seen: list[list[tuple[float, float]]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        self.seen.append([(group["lr"], group["weight_decay"]) for group in optimizer.param_groups])


@pytest.fixture
def begun(configure) -> Any:
    """Trains an epoch of two updates; returns the config and the checkpoint."""

    def train(**changes: Any) -> tuple[dict[str, Any], str]:
        config = configure("dvp_adaption_bert_vqa", max_epoch=1, **CONSTANT | changes)
        (last,) = Path(fit(config).log_dir).rglob("last.ckpt")
        return config, str(last)

    return train


def test_new_rates_and_decays_count_from_the_checkpoint_on(begun, capsys) -> None:
    config, last = begun()
    rates = Rates()
    fit(config | {"max_epoch": 2, "resume_from": last, "learning_rate": 1e-5, "weight_decay": 0.5, "lr_mult": 4}, rates)
    assert rates.seen == [[(1e-5, 0.5), (1e-5, 0.0), (4e-5, 0.5), (4e-5, 0.0)]] * 2
    said = capsys.readouterr().out
    assert "learning_rate=1e-05 (0.0001 until now)" in said and "weight_decay=0.5 (0.01 until now)" in said
    assert "num_workers" not in said


@pytest.mark.parametrize("new", [{"decay_power": 2, "end_lr": 1e-6}, {"decay_power": "cosine"}, {"warmup_steps": 0.75}])
def test_another_schedule_is_taken_up_where_the_checkpoint_stands(new: dict, begun, tmp_path: Path) -> None:
    config, last = begun()
    resumed, whole = Rates(), Rates()
    fit(config | new | {"max_epoch": 2, "resume_from": last}, resumed)
    fit(config | new | {"max_epoch": 2, "log_dir": str(tmp_path / "whole")}, whole)
    assert resumed.seen == whole.seen[2:]


def test_a_longer_training_does_not_start_at_the_rate_that_the_shorter_ended_with(begun, tmp_path: Path) -> None:
    config, last = begun(decay_power=1)
    resumed, whole = Rates(), Rates()
    fit(config | {"max_epoch": 3, "resume_from": last}, resumed)
    fit(config | {"max_epoch": 3, "log_dir": str(tmp_path / "whole")}, whole)
    assert resumed.seen == whole.seen[2:] and min(rate for rate, _ in resumed.seen[0]) > 0


@pytest.mark.parametrize("rows", [2, 8])
def test_at_the_end_of_an_epoch_other_passes_make_the_same_updates(
    rows: int, begun, make_language_model, tmp_path: Path
) -> None:
    still = make_language_model("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config, last = begun(tokenizer=still, drop_rate=0.0, optim_type="sgd", learning_rate=0.01)
    config |= {"max_epoch": 2, "resume_from": last}
    passes = {"per_gpu_batchsize": rows, "accumulate": 8 // rows, "log_dir": str(tmp_path / "other")}
    expected, other = fit(config), fit(config | passes)
    assert other.global_step == expected.global_step == 4
    for name, tensor in trained_state(expected.lightning_module).items():
        torch.testing.assert_close(trained_state(other.lightning_module)[name], tensor, atol=1e-5, rtol=1e-4)


REFUSED = {
    "optim_type": ("sgd", "optim_type=sgd, which is adamw in the checkpoint"),
    "batch_size": (4, "batch_size=4, which is 8 in the checkpoint"),
    "seed": (3, "seed=3, which is 0 in the checkpoint"),
    "max_epoch": (1, "has come as far as max_epoch=1 asks for: set max_epoch higher"),
    "max_steps": (2, "has come as far as max_steps=2 asks for: set max_steps higher"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_change_is_refused_with_both_values(key: str, begun, refused, tiny) -> None:
    _, last = begun()
    value, message = REFUSED[key]
    settings = tiny("dvp_adaption_bert_vqa") | CONSTANT | {"resume_from": last, "max_epoch": 2, key: value}
    assert message in refused("with", "dvp_adaption_bert_vqa", **settings)


def test_another_optimiser_leaves_no_folder_behind(begun) -> None:
    config, last = begun()
    before = sorted(Path(config["log_dir"]).rglob("*"))
    with pytest.raises(UserError, match="Give optim_type=adamw, or start from load_path"):
        fit(config | {"resume_from": last, "optim_type": "adam", "max_epoch": 2})
    assert sorted(Path(config["log_dir"]).rglob("*")) == before


@pytest.mark.parametrize("key, value", [("per_gpu_batchsize", 2), ("bucket_by_length", True)])
def test_within_an_epoch_its_rows_cannot_be_cut_otherwise(key: str, value: Any, begun) -> None:
    config, _ = begun(val_check_interval=0.5)
    (within,) = Path(config["log_dir"]).rglob("epoch=0-step=1.ckpt")
    with pytest.raises(UserError, match=f"{key}={value}, which is .* lies within an epoch"):
        fit(config | {"resume_from": str(within), "max_epoch": 2, key: value})


def test_every_setting_of_the_tables_exists() -> None:
    settings = set(ex.configurations[0](preset={}))
    assert {*SAME, *SAME_WITHIN_AN_EPOCH, *TAKEN} <= settings
    assert len({*SAME, *SAME_WITHIN_AN_EPOCH, *TAKEN}) == len((*SAME, *SAME_WITHIN_AN_EPOCH, *TAKEN))
