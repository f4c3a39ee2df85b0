"""What a step costs in operations and bytes, which no machine changes."""

import pytest
import torch

from benchmarks.step import build, count_flops, make_step, trained_bytes

# GFLOP per sample of BERT-base with ViT-B/16 tokens at 224 px, 16 text tokens, 3129 answers
BOUNDS = {
    ("train", "cache"): 10,
    ("train_adapter", "cache"): 7.5,
    ("search", "cache"): 14,
    ("infer", "cache"): 3.5,
    ("train", "live"): 45,
    ("search", "live"): 75,
}


@pytest.fixture(scope="module", params=["train", "train_adapter", "search", "infer"])
def mode_and_model(request):
    torch.manual_seed(0)
    return request.param, build("bert", request.param, torch.device("cpu"))


@pytest.mark.parametrize("image_tokens", ["cache", "live"])
def test_operations_per_sample_stay_bounded(mode_and_model, image_tokens):
    mode, model = mode_and_model
    if (mode, image_tokens) not in BOUNDS:
        pytest.skip("the others bound it: live adds the encoder alone")
    flops = count_flops(make_step(model, mode, "bert", 2, image_tokens, torch.device("cpu")))
    assert 0.3 * BOUNDS[mode, image_tokens] < flops / 2 / 1e9 <= BOUNDS[mode, image_tokens]


def test_an_adapter_checkpoint_is_small(mode_and_model):
    mode, model = mode_and_model
    if mode == "train_adapter":
        assert trained_bytes(model) < 60e6
    else:
        assert trained_bytes(model) > 400e6
