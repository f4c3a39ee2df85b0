"""Language models as they are loaded: in 16 bit at their size, in bits only on a GPU."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_world import fit
from transformers import LlamaModel

from dvp.backbones import BACKBONES, load_backbone
from dvp.checkpoints import trained_state
from dvp.errors import UserError

ROOT = Path(__file__).parents[1]
LARGE = {"hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 16}
MEASURE = """
import sys, torch
from pathlib import Path
from transformers import LlamaModel
from dvp.backbones import load_backbone

def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024

Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
backbone = load_backbone(sys.argv[1], dtype=torch.bfloat16)
size = sum(parameter.nbytes for parameter in backbone.parameters())
assert {parameter.dtype for parameter in backbone.parameters()} == {torch.bfloat16}
float(sum(parameter.sum() for parameter in backbone.parameters()))  # what is mapped is read
print((memory("VmHWM") - before) / size)
"""


def as_bin(folder: Path) -> None:
    """Turn the shards of a folder into those that torch.save writes, as published LLaMA weights are."""
    listing = folder / "model.safetensors.index.json"
    index = json.loads(listing.read_text())
    for name in set(index["weight_map"].values()):
        torch.save(load_file(folder / name), folder / f"pytorch_{name[:-12]}.bin")
        (folder / name).unlink()
    index["weight_map"] = {key: f"pytorch_{name[:-12]}.bin" for key, name in index["weight_map"].items()}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    listing.unlink()


@pytest.fixture(scope="module")
def large(make_language_model) -> Path:
    """A LLaMA of 160 MB in 16 bit, stored in fp16 as LLaMA-7B is, in two shards."""
    folder = Path(make_language_model("llama"))
    model = LlamaModel.from_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaModel._from_config(type(model.config)(**model.config.to_dict() | LARGE), dtype=torch.float16)
    (folder / "model.safetensors").unlink()
    size = sum(parameter.nbytes for parameter in model.parameters())
    model.save_pretrained(folder, max_shard_size=f"{int(0.6 * size / 1e6)}MB")
    assert len(list(folder.glob("*.safetensors"))) == 2
    return folder


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_a_16_bit_model_takes_its_own_size(large: Path) -> None:
    for prepare in (lambda folder: None, as_bin):
        prepare(large)
        files = {path: path.stat().st_mtime_ns for path in large.iterdir()}
        ran = subprocess.run([sys.executable, "-c", MEASURE, large], cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert 0.9 < float(ran.stdout.split()[-1]) < 1.2
        assert files == {path: path.stat().st_mtime_ns for path in large.iterdir()}


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("family", BACKBONES)
def test_16_bit_weights_are_the_stored_ones_rounded(family: str, stored: torch.dtype, make_language_model) -> None:
    folder = Path(make_language_model(family))
    model = load_backbone(str(folder)).model.to(stored)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))  # says what it likes
    loaded = dict(load_backbone(str(folder), dtype=torch.bfloat16).model.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded[name], parameter.bfloat16()), name


@pytest.mark.parametrize("family", BACKBONES)
def test_a_16_bit_base_is_trained_beside_in_fp32(family: str, configure, settings_of) -> None:
    bf16 = {"use_adapter": True, "precision": "bf16", "backbone_dtype": "bfloat16"}
    config = configure("dvp_adaption_bert_vqa", **settings_of(family), **bf16)
    trainer = fit(config)
    module = trainer.lightning_module
    assert {parameter.dtype for parameter in trained_state(module).values()} == {torch.float32}
    frozen = [p for p in module.model.backbone.parameters() if not p.requires_grad]
    assert {parameter.dtype for parameter in frozen} == {torch.bfloat16}
    assert trainer.callback_metrics["vqa/train/loss"].isfinite()


def test_quantised_weights_need_a_gpu(refused, tiny) -> None:
    settings = tiny("dvp_adaption_llama_vqa", quantize="4bit", use_adapter=True, tokenizer="nowhere")
    assert "quantize=4bit needs a GPU" in refused("with", "dvp_adaption_llama_vqa", **settings)  # before the model


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_quantised_weights_need_bitsandbytes(quantize: str, language_models: dict[str, str]) -> None:
    with pytest.raises(UserError, match=f"quantize={quantize} needs bitsandbytes: pip install"):
        load_backbone(language_models["llama"], quantize=quantize)
