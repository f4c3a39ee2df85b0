import pytest
from transformers import BertConfig, CLIPVisionConfig

from benchmarks import step


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark at a size that takes no time."""
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    monkeypatch.setitem(step.CONFIGS, "bert", BertConfig(vocab_size=50, **sizes))
    monkeypatch.setattr(step, "VISION", CLIPVisionConfig(image_size=32, patch_size=16, **sizes))
    monkeypatch.setattr(step, "ANSWERS", 7)
    monkeypatch.setattr(step, "matmul_rate", lambda device: 1e9)
