"""The published step and ViLT's beside ours: same logits, all in one run."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import ViltConfig

from benchmarks import peers
from dvp.compressor import VisualTokenCompressor


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contestants in threads, where they see what the tests have changed; a step a turn."""
    monkeypatch.setattr(peers, "ProcessPoolExecutor", lambda workers, context: ThreadPoolExecutor(workers))
    monkeypatch.setattr(peers, "WARM_UP", 0)
    monkeypatch.setattr(peers, "TURN", 0)


@pytest.fixture
def tiny_vilt(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    monkeypatch.setattr(peers, "VILT_SIZE", 64)
    monkeypatch.setattr(peers, "ViltConfig", lambda **options: ViltConfig(vocab_size=50, **sizes, **options))


def test_every_mode_has_its_contestants(tiny, tiny_vilt, in_this_process, tmp_path: Path, monkeypatch) -> None:
    words = ["--batch", "2", "--repeats", "1", "--json", f"{tmp_path}/peers.json"]
    monkeypatch.setattr(sys, "argv", ["peers", *words])
    peers.main()
    rows = {row.pop("mode"): row for row in json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))}
    assert rows.keys() == {"train", "train_adapter", "search", "infer"}
    for mode, row in rows.items():
        assert row.keys() == {"batch", "published", "live", "cache"} | (
            {"vilt"} if mode in ("train", "infer") else set()
        )
        assert all(seconds > 0 for seconds in row.values())


def test_a_published_step_trains_all_but_clip(tiny) -> None:
    model = peers.build("bert", "train", peers.CPU)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    peers.published_step(model, "train", 2)()
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert {name.split(".")[0] for name in moved} == {"backbone", "compressors", "head"}


def test_a_step_with_other_logits_is_refused(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = VisualTokenCompressor.forward
    monkeypatch.setattr(VisualTokenCompressor, "forward", lambda *inputs: 2 * forward(*inputs))
    with pytest.raises(ValueError, match="logits differ"):
        peers.published("train", 2)
