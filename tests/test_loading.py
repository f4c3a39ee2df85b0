"""Language models as they are loaded: in 16 bit at their size, in 8 and 4 bits by bitsandbytes."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_world import fit, picture
from torch import nn
from transformers import LlamaModel

import dvp
from dvp.backbones import BACKBONES, load_backbone
from dvp.build import build, build_empty
from dvp.checkpoints import trained_state
from dvp.doctor.room import standing
from dvp.errors import UserError

ROOT = Path(__file__).parents[1]
LARGE = {"hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 16}
MEASURE = """
import gc, sys, torch
from pathlib import Path
from transformers import LlamaModel
from dvp.backbones import load_backbone

def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024

for folder in sys.argv[1:]:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    backbone = load_backbone(folder, dtype=torch.bfloat16)
    size = sum(parameter.nbytes for parameter in backbone.parameters())
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.bfloat16}
    float(sum(parameter.sum() for parameter in backbone.parameters()))  # what is mapped is read
    print((memory("VmHWM") - before) / size)
    del backbone
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
    folders = large, Path(shutil.copytree(large, large.with_name("bin")))
    as_bin(folders[1])
    files = {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}
    ran = subprocess.run([sys.executable, "-c", MEASURE, *folders], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    shares = [float(word) for word in ran.stdout.split()]
    assert len(shares) == 2 and all(0.9 < share < 1.2 for share in shares), shares
    assert files == {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}


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


# In 8 and 4 bits

QUANTISED = pytest.mark.parametrize("quantize", ["8bit", "4bit"])
BITSANDBYTES = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is missing")


@QUANTISED
def test_a_whole_model_is_not_trained_in_bits(quantize: str, refused, tiny) -> None:
    settings = tiny("dvp_adaption_bert_vqa", quantize=quantize, tokenizer="nowhere")  # before the model
    assert f"quantize={quantize} is for a frozen language model" in refused("with", "dvp_adaption_bert_vqa", **settings)


@BITSANDBYTES
@pytest.mark.parametrize(
    "family, kind, quantize, precision",
    [
        ("llama", True, "8bit", 32), ("llama", "lora", "4bit", "bf16"), ("bert", "lora", "8bit", "bf16"),
        ("bert", "dora", "4bit", "bf16"), ("bert", True, "4bit", 32), ("t5", "ia3", "4bit", 32),
    ],
)  # fmt: skip
def test_a_run_beside_weights_in_bits_is_loaded_on_a_cpu_as_it_ended(
    family: str, kind: bool | str, quantize: str, precision: int | str, command, tiny, language_models, capfd
) -> None:
    experiment = f"dvp_adaption_{family}_vqa"
    settings = tiny(experiment, quantize=quantize, use_adapter=kind, max_steps=4, learning_rate=1e-2, insert_layer=1)
    settings |= {"decay_power": "constant", "warmup_steps": 0, "precision": precision}
    command("with", experiment, **settings)
    assert "bitsandbytes" not in (said := capfd.readouterr().err) and "cast" not in said
    (last,) = Path(settings["log_dir"]).rglob("last.ckpt")
    model = dvp.load(last)
    held = {type(one.weight).__name__ for one in model.model.backbone.modules() if isinstance(one, nn.Linear)}
    assert {"8bit": "Int8Params", "4bit": "Params4bit"}[quantize] in held
    first, again = (model.answer(picture(5), "is there a red circle") for _ in range(2))
    assert first == again and dvp.load(last).answer(picture(5), "is there a red circle") == first
    command(
        "with", test_only=True, load_path=last, **{key: settings[key] for key in ("data_root", "log_dir", "num_gpus")}
    )
    assert list(Path(settings["log_dir"]).glob("vqa_submit_last.json"))


@BITSANDBYTES
@QUANTISED
def test_what_bits_take_is_counted(quantize: str, configure) -> None:
    config = configure("dvp_adaption_llama_vqa", quantize=quantize, precision="bf16")
    real = build(config)[1].model
    bytes_ = sum(one.nbytes for one in real.parameters() if not one.requires_grad)
    for layer in real.backbone.modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        scales = state.absmax if state is not None else getattr(getattr(layer, "weight", None), "SCB", None)
        bytes_ += 0 if scales is None else scales.nbytes
    # Ours counts blocks of 64 as they fall, bitsandbytes rounds them up for each layer.
    assert standing(build_empty(config), config)["frozen weights"] == pytest.approx(bytes_, rel=1e-3)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
@QUANTISED
def test_quantised_weights_need_bitsandbytes(quantize: str, language_models: dict[str, str]) -> None:
    with pytest.raises(UserError, match=f"quantize={quantize} needs bitsandbytes: pip install"):
        load_backbone(language_models["llama"], quantize=quantize)
