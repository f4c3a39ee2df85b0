"""The published step and ViLT's beside ours: same logits, all in one run."""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import ViltConfig

from benchmarks import meters, peers
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


def test_every_mode_has_its_contestants(tiny, tiny_vilt, in_this_process, tmp_path: Path, monkeypatch, capsys) -> None:
    words = ["--batch", "2", "--repeats", "2", "--json", f"{tmp_path}/peers.json"]
    monkeypatch.setattr(sys, "argv", ["peers", *words])
    peers.main()
    rows = {row.pop("mode"): row for row in json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))}
    assert rows.keys() == {"train", "train_adapter", "search", "infer"}
    for mode, row in rows.items():
        others = {"live", "cache"} | ({"vilt"} if mode in ("train", "infer") else set())
        assert row["seconds"].keys() == {"published"} | others and row["faster"].keys() == others
        assert all(len(taken) == 2 and min(taken) > 0 for taken in (row["seconds"] | row["faster"]).values())
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 and all(line.count(" to ") == len(re.findall(r"\) [sx]", line)) > 4 for line in printed)


def test_ratios_are_of_the_same_turn() -> None:
    # A neighbour halves the machine's speed in the second turn.
    times = {"published": [4.0, 8.0, 6.0], "cache": [1.0, 2.0, 1.0]}
    assert peers.times_faster(times) == {"cache": [4.0, 4.0, 6.0]}
    assert meters.spread(times["published"]) == "6.00 (4.00 to 8.00)"


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
