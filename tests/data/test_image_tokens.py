"""Image tokens in a run: from the cache they are those encoded live, each distinct picture encoded once."""

import fcntl
import io
import os
import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_world import SPLITS, fit, picture, rows_of, write_table
from torch import Tensor
from two_processes import beside, in_two_processes

from dvp.build import build_data, build_module
from dvp.checkpoints import trained_state
from dvp.data import datamodule, image_tokens
from dvp.errors import UserError
from dvp.runs.trainer import build_trainer
from dvp.vision import Seen, Vision

PICTURES = 4 * len(set(SPLITS["vqa"]) - {"test", "test-dev"})  # distinct ones in the tables of a training run
TESTED = PICTURES + 4
MEASURED = 4  # those that the encoder is measured with


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of the encoder got."""
    calls: list[int] = []
    forward = Vision.forward

    def count(self: Vision, batch: dict[str, Tensor]) -> Seen:
        if "image_tokens" not in batch:
            calls.append(len(batch["pixel_values"]))
        return forward(self, batch)

    monkeypatch.setattr(Vision, "forward", count)
    return calls


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets auto measure that reading, or encoding, is the faster."""

    def choose(which: str) -> None:
        times = {"read": [2.0, 1.0], "live": [1.0, 2.0]}[which] * 9
        monkeypatch.setattr(image_tokens, "_seconds", lambda work: times.pop(0))

    return choose


@pytest.fixture
def own(configure: Callable[..., dict], data_root: str, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The config of an experiment on a copy of the data that no other test fills."""
    folder = shutil.copytree(data_root, tmp_path / "data", ignore=shutil.ignore_patterns("image_tokens"))

    def make(experiment: str = "dvp_search_bert_vqa", **changes: Any) -> dict[str, Any]:
        log_dir = str(tmp_path / f"result_{len(list(tmp_path.iterdir()))}")
        return configure(experiment, data_root=str(folder), **{"image_tokens": "cache", "log_dir": log_dir} | changes)

    return make


def trained(config: dict[str, Any]) -> dict[str, Tensor]:
    module = fit(config).lightning_module
    state = {name: parameter.detach() for name, parameter in trained_state(module).items()}
    return state | ({"preferences": module.bandit.preferences} if module.bandit else {})


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0, msg=name)


def shards(config: dict[str, Any]) -> set[Path]:
    return set(Path(config["data_root"]).rglob("*.tokens"))


# What comes out


@pytest.mark.parametrize("experiment", ["dvp_search_bert_vqa", "dvp_adaption_t5_gqa"])
@pytest.mark.parametrize("place", ["host", "device"])
def test_a_run_from_the_cache_ends_as_a_live_one(experiment: str, place: str, own) -> None:
    live = trained(own(experiment, image_tokens="live", max_steps=3))
    assert_equal(trained(own(experiment, image_tokens_on=place, max_steps=3, num_workers=1)), live)


def test_bf16_tokens_are_those_of_the_encoder_bit_for_bit(own) -> None:
    data = fit(own(precision="bf16", max_steps=1)).datamodule
    live = fit(own(precision="bf16", max_steps=1, image_tokens="live"))
    vision = live.lightning_module.model.vision
    batch = next(iter(live.datamodule.val_dataloader()[0]))
    with torch.autocast("cpu", torch.bfloat16):
        expected = vision(batch).tokens.bfloat16()
    batch = data.on_before_batch_transfer(next(iter(data.val_dataloader()[0])), 0)
    assert batch["image_tokens"].dtype == torch.bfloat16
    assert torch.equal(batch["image_tokens"], expected)


def test_tokens_stay_on_the_host_where_they_do_not_fit(own, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(datamodule, "_free_bytes", lambda device: 100.0)
    fits = fit(own(image_tokens_on="device", max_steps=1))
    assert "stay on the host" in capsys.readouterr().out
    assert fits.datamodule.held is None


# What is encoded


@pytest.mark.parametrize("workers", [0, 1])
def test_auto_encodes_each_picture_once_while_it_trains_and_ends_as_a_live_run(
    workers: int, own, encoded: list[int], faster
) -> None:
    faster("read")
    live = trained(own(image_tokens="live", max_steps=None))
    encoded.clear()
    assert_equal(trained(own(image_tokens="auto", max_steps=None, num_workers=workers)), live)
    assert encoded[0] == MEASURED and max(encoded[1:]) <= 4  # never more than a batch: nothing before the first epoch
    assert sum(encoded) == PICTURES + MEASURED
    encoded.clear()
    fit(own(image_tokens="cache"))
    assert sum(encoded) == MEASURED


def test_auto_encodes_no_picture_that_a_short_run_does_not_meet(own, encoded: list[int], faster, capsys) -> None:
    faster("read")
    config = own("dvp_adaption_bert_vqa", image_tokens="auto", max_steps=1)
    fit(config)
    assert f"Encoding up to {PICTURES} images that are not kept yet, as they are met, into" in capsys.readouterr().out
    assert sum(encoded) < PICTURES + MEASURED
    assert len(shards(config)) == 1  # what was met is kept
    encoded.clear()
    fit(own("dvp_adaption_bert_vqa", image_tokens="auto", max_steps=1))
    assert sum(encoded) == MEASURED


def test_what_no_batch_of_the_first_epoch_met_is_encoded_before_the_second(own, encoded: list[int], faster) -> None:
    faster("read")
    config = own("dvp_adaption_bert_vqa", image_tokens="auto", max_steps=None, max_epoch=2, val_check_interval=1.0)
    limited = build_trainer(config, "vqa/rest_val/score")
    limited.limit_train_batches = limited.limit_val_batches = 1
    data = build_data(config)
    limited.fit(build_module(config, data), datamodule=data)
    assert sum(encoded) == PICTURES + MEASURED


def test_a_run_that_breaks_keeps_what_it_has_encoded(own, encoded: list[int], faster) -> None:
    faster("read")

    class Break(pl.Callback):
        def on_train_batch_end(self, *_) -> None:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(own(image_tokens="auto"), Break())
    assert len(shards(own())) == 1
    fit(own(image_tokens="cache"))  # and locks nobody out
    assert sum(encoded) == PICTURES + 2 * MEASURED


@pytest.mark.parametrize("mode", ["auto", "cache"])
def test_of_two_runs_at_once_one_builds_and_the_other_waits_or_stays_live(mode: str, own, faster) -> None:
    config = own(image_tokens=mode)
    fit(own())  # makes the cache's folder
    for shard in shards(config):
        shard.unlink()
    (lock,) = Path(config["data_root"]).rglob("lock")
    faster("read")
    with beside(lambda: fit(config)) as other:
        with open(lock, "w") as building:
            fcntl.flock(building, fcntl.LOCK_EX)
            other.begin()
            said = next(line for line in other.said if "nother run is building" in line)
            assert ("stays live" if mode == "auto" else "waiting for it") in said
            if mode == "auto":
                other.wait()
    assert len(shards(config)) == (0 if mode == "auto" else 1)


def test_encode_leaves_nothing_to_a_run_or_its_test(own, encoded: list[int], command, tiny, capsys) -> None:
    config = own("dvp_adaption_bert_vqa")
    keys = tiny("dvp_adaption_bert_vqa").keys()
    settings = {key: config[key] for key in keys}
    command("encode", "with", "dvp_adaption_bert_vqa", **settings)
    assert f"Encoding {TESTED} images" in capsys.readouterr().out
    command("encode", "with", "dvp_adaption_bert_vqa", **settings)
    assert sum(encoded) == TESTED + 2 * MEASURED
    encoded.clear()
    command("with", "dvp_adaption_bert_vqa", **settings)
    (last,) = Path(config["log_dir"]).rglob("last.ckpt")
    answers = {}
    for mode in ("cache", "live"):
        tested = settings | {"test_only": True, "load_path": last, "image_tokens": mode}
        command("with", "dvp_adaption_bert_vqa", **tested)
        answers[mode] = (Path(config["log_dir"]) / "vqa_submit_last.json").read_text(encoding="utf-8")
        assert sum(encoded) == 2 * MEASURED + {"cache": 0, "live": 8}[mode]  # questions
    assert answers["cache"] == answers["live"]


def test_a_dry_run_encodes_no_data_set(own, encoded: list[int]) -> None:
    fit(own(image_tokens="auto", fast_dev_run=True))
    assert len(encoded) == 3  # batches: one of training, validation and search
    assert not shards(own())


def test_only_a_new_picture_is_encoded_and_the_old_one_never_served(own, encoded: list[int]) -> None:
    fit(own())
    table = Path(own()["data_root"]) / "vqav2_train.arrow"
    rows = rows_of("vqa", "train")
    rows[2]["image"] = picture(4711)
    write_table(table, rows)
    encoded.clear()
    cached = trained(own())
    assert sum(encoded) == 1 + MEASURED
    assert_equal(cached, trained(own(image_tokens="live")))


def test_tokens_of_another_encoder_are_not_read(own, encoded: list[int], tmp_path: Path) -> None:
    config = own()
    fit(config)
    folder = shutil.copytree(config["clip_model"], tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    save_file({name: 1.01 * value for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    encoded.clear()
    fit(own(clip_model=str(folder)))
    assert sum(encoded) == PICTURES + MEASURED


# What stands in the way


@pytest.mark.parametrize("damage", ["truncated", "bit flipped"])
def test_a_damaged_shard_is_named_and_built_again(damage: str, own, encoded: list[int], capsys) -> None:
    expected = trained(own())
    (shard,) = shards(own())
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data if damage == "bit flipped" else data[:-1])
    encoded.clear()
    assert_equal(trained(own()), expected)
    assert f"{shard} is damaged" in capsys.readouterr().out
    assert sum(encoded) == PICTURES + MEASURED
    assert not shard.exists()


@pytest.mark.parametrize("mode", ["cache", "auto"])
def test_a_full_disk_stops_cache_and_leaves_auto_live(mode: str, own, faster, monkeypatch, capsys) -> None:
    faster("read")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1000))
    if mode == "cache":
        with pytest.raises(UserError, match="make room"):
            fit(own())
    else:
        assert_equal(trained(own(image_tokens="auto")), trained(own(image_tokens="live")))
        assert "image_tokens=auto stays live: The image tokens need" in capsys.readouterr().out
    assert not shards(own())


@pytest.mark.parametrize("mode", ["cache", "auto"])
def test_a_place_that_cannot_be_written_stops_cache_and_leaves_auto_live(mode: str, own, faster, capsys) -> None:
    faster("read")
    live = trained(own(image_tokens="live"))
    (Path(own()["data_root"]) / "image_tokens").symlink_to("/proc/1/nowhere")  # where not even root can make a folder
    if mode == "cache":
        with pytest.raises(UserError, match="image_tokens.* cannot be written .*make it writable"):
            fit(own())
    else:
        assert_equal(trained(own(image_tokens="auto")), live)
        assert re.search("image_tokens=auto stays live: .*image_tokens.* cannot be written", capsys.readouterr().out)


def test_turned_pictures_have_tokens_of_their_own(own, encoded: list[int]) -> None:
    table = Path(own()["data_root"]) / "vqav2_train.arrow"
    rows = rows_of("vqa", "train")
    exif = Image.Exif()
    exif[0x0112] = 6
    for row in rows:
        Image.open(io.BytesIO(row["image"])).save(buffer := io.BytesIO(), "PNG", exif=exif)
        row["image"] = buffer.getvalue()
    write_table(table, rows)
    as_they_lie = trained(own())
    encoded.clear()
    turned = trained(own(turn_pictures=True))
    assert sum(encoded) == PICTURES + MEASURED
    assert_equal(turned, trained(own(turn_pictures=True, image_tokens="live")))
    assert not all(torch.equal(turned[name], tensor) for name, tensor in as_they_lie.items())


def test_auto_stays_live_and_says_so_where_reading_is_slower(own, faster, capsys) -> None:
    faster("live")
    live = trained(own(image_tokens="live"))
    assert_equal(trained(own(image_tokens="auto")), live)
    assert "image_tokens=auto stays live" in capsys.readouterr().out
    assert not shards(own())


def test_encode_refuses_what_it_cannot_do(refused, tiny) -> None:
    settings = tiny("dvp_search_bert_vqa")
    assert "takes 16 pixels" in refused("encode", "with", "dvp_search_bert_vqa", **settings | {"image_size": 32})
    gpus = settings | {"num_gpus": 99, "batch_size": 396}
    assert "num_gpus=99 but this machine" in refused("encode", "with", "dvp_search_bert_vqa", **gpus)


# Several processes


def _fit_as_rank(config: dict[str, Any], out: Path) -> None:
    rank = int(os.environ["RANK"])
    times = [2.0, 1.0] if rank == 0 else [1.0, 2.0]  # the ranks disagree on what is faster
    image_tokens._seconds = lambda work: times.pop(0)
    trainer = fit(config)
    torch.save(trained_state(trainer.lightning_module), out / f"{rank}.pt")


@pytest.mark.two_processes
def test_two_processes_that_measure_otherwise_fill_one_cache(own, tmp_path: Path) -> None:
    config = own(cpu_processes=2, per_gpu_batchsize=2, max_steps=1, image_tokens="auto")
    in_two_processes(_fit_as_rank, config, tmp_path)
    assert len(shards(config)) == 2  # a share of each
    assert_equal(*(torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)))
