"""ScienceQA's published checkpoints: read whatever lies beside the weights, and none of it run."""

import argparse
import os
from pathlib import Path

import pytest
import torch

from dvp.errors import UserError
from dvp.published.scienceqa import read_published


class Touch:
    """Pickles as a call that makes a file."""

    def __init__(self, flag: Path):
        self.flag = flag

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.flag}",)


def test_a_file_is_read_whatever_lies_beside_its_weights(tmp_path: Path) -> None:
    """Training files hold settings, an optimizer and a scaler beside the model."""
    down = "module.layers.0.adapter_attn.conv_A.weight"
    weights = {"module.image_params": torch.ones(2, 3), down: torch.ones(4, 2, 1)}
    wanted = {"prefix.slot": (2, 3), "backbone.model.layers.0.input_layernorm.adapter.down.weight": (4, 2)}
    beside = {"args": argparse.Namespace(llm_model="7B"), "harm": Touch(tmp_path / "flag"), "epoch": 3}
    for content in ({"model": weights} | beside, weights):
        torch.save(content, tmp_path / "checkpoint-3.pth")
        read = read_published(str(tmp_path / "checkpoint-3.pth"))
        assert {name: tuple(tensor.shape) for name, tensor in read.items()} == wanted
    assert not (tmp_path / "flag").exists()
    torch.save({"model": weights | {"step": 3}}, tmp_path / "checkpoint-3.pth")
    with pytest.raises(UserError, match="checkpoint-3.pth is no published checkpoint"):
        read_published(str(tmp_path / "checkpoint-3.pth"))
