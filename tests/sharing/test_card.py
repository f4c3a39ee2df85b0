"""The model card says of its tables what it counts there."""

from pathlib import Path

import pytest

from dvp.sharing.card import write_card
from dvp.sharing.known import Known


@pytest.mark.parametrize("task, counted", [("vqa", "2,500 pictures, with their questions"), ("scienceqa", "2,500 questions")])  # fmt: skip  # noqa: E501
def test_a_row_is_a_picture_or_a_question(task: str, counted: str, tmp_path: Path) -> None:
    config = {"tokenizer": "bert-base-uncased", "clip_model": "ViT-B/16"}
    described = {
        "config": config, "task": task, "as_published": False, "insert_layer": 2, "language_model": "BertBackbone",
        "answers": ["yes", "no"], "frozen": "0" * 64,
    }  # fmt: skip
    write_card(tmp_path / "README.md", Known(described, config, {}, None, False, {"t.arrow": 2500}), "mit")
    assert f"| tables | t.arrow: {counted} |" in (tmp_path / "README.md").read_text()
