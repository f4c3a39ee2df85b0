"""The model card says of its tables what it counts there."""

from pathlib import Path

import pytest

from dvp.sharing.card import write_card
from dvp.sharing.known import Known


@pytest.mark.parametrize("task, row", [("vqa", "pictures"), ("scienceqa", "questions")])
def test_a_row_is_a_picture_or_a_question(task: str, row: str, tmp_path: Path) -> None:
    config = {"tokenizer": "bert-base-uncased", "clip_model": "ViT-B/16"}
    described = {
        "config": config, "task": task, "as_published": False, "insert_layer": 2, "language_model": "BertBackbone",
        "answers": ["yes", "no"], "frozen": "0" * 64,
    }  # fmt: skip
    write_card(tmp_path / "README.md", Known(described, config, {}, None, False, {"t.arrow": 2500}), "mit")
    assert f"| {row} of each table | t.arrow 2,500 |" in (tmp_path / "README.md").read_text()
