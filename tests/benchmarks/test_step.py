"""What a step costs in operations and bytes, which no machine changes, and the rows that the benchmark writes."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import image_tokens, memory, meters, step
from dvp.compressor import VisualTokenCompressor
from dvp.tasks import TASKS

# GFLOP per sample of BERT-base with ViT-B/16 tokens at 224 px, 16 text tokens, 3129 answers
BOUNDS = {
    ("train", "cache"): 10,
    ("train_adapter", "cache"): 7.5,
    ("search", "cache"): 14,
    ("infer", "cache"): 3.5,
    ("train", "live"): 45,
    ("search", "live"): 75,
}
KEYS = {"mode", "image_tokens", "batch", "seconds_median", "seconds_min", "gflop_per_sample", "peak_bytes",
        "checkpoint_bytes", "matmul_share"}  # fmt: skip


@pytest.mark.parametrize("mode, image_tokens", BOUNDS)
def test_operations_per_sample_stay_bounded(mode: str, image_tokens: str) -> None:
    bound = BOUNDS[mode, image_tokens]
    assert 0.3 * bound < step.count_flops("bert", mode, 2, image_tokens) / 2 / 1e9 <= bound


def test_an_adapter_checkpoint_is_small() -> None:
    whole, adapter = (step.build("bert", mode, torch.device("meta")) for mode in ("train", "train_adapter"))
    assert step.trained_bytes(adapter) < 60e6
    assert step.trained_bytes(whole) > 400e6


def test_llama_of_seven_billions_in_4_bits_fits_24_gigabytes() -> None:
    table = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    told = memory.counted("4bit", True, batch=32)
    assert told["all"] < memory.CARD
    numbers = " | ".join(f"{number / 1e9:.2f}" for number in told.values())
    assert f"| 4bit | True | {numbers} | yes |" in table


@pytest.mark.parametrize("mode", ["search", "train_adapter"])
@pytest.mark.parametrize("family", step.CONFIGS)
def test_on_a_gpu_a_forward_pass_makes_nothing_on_the_cpu(family: str, mode: str) -> None:
    # Fake tensors know their device, and need neither the device nor memory. They can't go backward without one.
    gpu, task = torch.device("cuda"), TASKS["vqa"]
    with FakeTensorMode(), step.autocast(gpu):
        model = step.build(family, mode, gpu)
        batch = step.random_batch(family, 2, "live", gpu)
        for layers, training in (([5], True), ([0, 5, model.num_layers - 1], False)):
            for logits in model.train(training).forward_arms(batch, layers).values():
                assert task.loss(logits, batch["targets"]).device.type == "cuda"
                assert task.score(logits, batch["targets"]).device.type == "cuda"
        with pytest.raises(RuntimeError, match="cuda.*cpu"):
            model(batch | {"pixel_values": batch["pixel_values"].cpu()}, 5)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["step", *words, "--repeats", "2"])
    step.main()


def test_there_is_a_row_for_every_combination(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = "train,train_adapter,search,infer"
    run(monkeypatch, "--mode", modes, "--batch", "2", "--image-tokens", "live,cache", "--json", f"{tmp_path}/out.json")
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    combinations = {(row["mode"], row["image_tokens"], row["batch"]) for row in rows}
    assert len(rows) == len(combinations) == 8
    for row in rows:
        assert row.keys() >= KEYS
        assert 0 < row["seconds_min"] <= row["seconds_median"]
        assert row["gflop_per_sample"] > 0 and row["matmul_share"] > 0
        assert row["max_logit_difference"] <= row["tolerance"]


@pytest.mark.parametrize("kept", ["host", "device"])
def test_tokens_of_a_cache_are_drawn_anew_for_each_step(kept: str, tiny) -> None:
    fetch = step.random_batches("bert", 4, kept, torch.device("cpu"))
    first, second = fetch(4)["image_tokens"], fetch(2)["image_tokens"]
    assert first.shape == (4, 5, 48) and second.shape == (2, 5, 48)
    assert not torch.equal(first[:2], second)


def test_a_cache_holds_different_pictures(tiny) -> None:
    held = image_tokens.filled_cache(step.VISION, torch.device("cpu")).gather(torch.arange(image_tokens.PICTURES))
    assert len(held.flatten(1).unique(dim=0)) == image_tokens.PICTURES


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is missing")
@pytest.mark.parametrize("quantize, held", [("8bit", "Int8Params"), ("4bit", "Params4bit")])
def test_a_frozen_language_model_is_measured_in_bits(
    quantize: str, held: str, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = step.random_backbone("bert", torch.float32, quantize)
    assert held in {type(one.weight).__name__ for one in backbone.modules() if hasattr(one, "weight")}
    words = ["--mode", "train_adapter", "--batch", "2", "--image-tokens", "host", "--json", f"{tmp_path}/out.json"]
    run(monkeypatch, *words, "--quantize", quantize)
    (row,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert row["quantize"] == quantize and row["seconds_min"] > 0


def test_what_is_trained_is_not_held_in_bits(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="for a frozen language model"):
        run(monkeypatch, "--mode", "train", "--quantize", "8bit")


def test_waits_of_a_step_are_counted(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--mode", "infer,search", "--batch", "2", "--image-tokens", "cache", "--json", f"{tmp_path}/out.json"]
    run(monkeypatch, *words, "--profile")
    infer, search = (row["host_waits"] for row in json.loads((tmp_path / "out.json").read_text(encoding="utf-8")))
    assert set(infer.values()) == {0}
    assert search["aten::_local_scalar_dense"] > 0  # on a CPU the optimiser reads a count of steps for each weight


@pytest.mark.parametrize("wait", [Tensor.item, bool, float])
def test_a_read_value_is_a_wait(wait: Callable) -> None:
    values = torch.arange(3)
    counted = meters.host_waits(lambda: [wait(value) for value in values], torch.device("cpu"))
    assert counted == {"aten::_local_scalar_dense": 3, "cudaStreamSynchronize": 0, "Memcpy DtoH": 0}


def test_the_peak_of_a_row_is_its_own(tiny) -> None:
    device = torch.device("cpu")
    step.reset_peak(device)
    before = step.peak_bytes(device)
    torch.ones(2**26)  # 256 MB, freed at once
    assert step.peak_bytes(device) > before + 2**27
    assert step.measure("bert", "infer", "cache", 2, device, 1)["peak_bytes"] < before + 2**27


def test_no_row_counts_whose_logits_are_not_the_plain_paths(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = VisualTokenCompressor.forward
    monkeypatch.setattr(VisualTokenCompressor, "forward", lambda *inputs: 2 * forward(*inputs))
    with pytest.raises(ValueError, match="differ from the plain path"):
        step.measure("bert", "search", "cache", 2, torch.device("cpu"), 1)
