"""A frozen base held by bitsandbytes and by torchao: a row for each way, or why there is none."""

import importlib.util
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from transformers import LlamaConfig

from benchmarks import quantised

LACKING = [name for name in ("bitsandbytes", "torchao") if importlib.util.find_spec(name) is None]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, capsys) -> dict[str, str]:
    """What is printed of each way, at a size that takes no time, and in this process."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setattr(quantised, "LLAMA", LlamaConfig(vocab_size=50, pad_token_id=0, **sizes))
    monkeypatch.setattr(quantised, "BATCH", 2)
    monkeypatch.setattr(quantised, "ProcessPoolExecutor", lambda workers, context: ThreadPoolExecutor(workers))
    monkeypatch.setattr(sys, "argv", ["quantised", "--repeats", "1"])
    quantised.main()
    return dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())


def test_every_way_has_a_row_or_a_reason(rows: dict[str, str]) -> None:
    assert rows.keys() == quantised.WAYS.keys()
    for name, told in rows.items():
        if package := next((package for package in LACKING if name.startswith(package)), None):
            assert package in told  # torchao is not among what the project needs
        elif name != "torchao int4":  # has no kernel for CPUs
            assert re.search(r"error .* frozen MB .* step MB .* train_adapter .* to .* s  infer .* to .* s$", told)


@pytest.mark.skipif("bitsandbytes" in LACKING, reason="bitsandbytes is missing")
def test_fewer_bits_are_smaller_and_further_off(rows: dict[str, str]) -> None:
    names = ("fp32", "bitsandbytes 8bit", "bitsandbytes 4bit")
    errors = [float(re.search(r"error (\S+)", rows[name])[1]) for name in names]
    sizes = [float(re.search(r"frozen MB (\S+)", rows[name])[1]) for name in names]
    assert errors == sorted(errors) and errors[0] == 0 < errors[1]
    assert sizes == sorted(sizes, reverse=True)
