"""Seconds, floating-point operations and bytes of one step at real size, with random weights, no downloads.

    python -m benchmarks.step --language-model bert --mode train,train_adapter,search,infer --batch 8 \
        --image-tokens live,cache --json out.json

Prints a table and writes a list of rows. A search step is one update, then five drawn arms scored on half a batch. Each
row says how far its logits are from the plain path: images encoded, every token projected, one arm at a time.
"""

import argparse
import ctypes
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, T5Config

from dvp.backbones import BACKBONES
from dvp.build import compile_parts
from dvp.checkpoints import trained_state
from dvp.compressor import VisualTokenCompressor
from dvp.cpu.memory import keep_freed_memory
from dvp.model import DVP, adapt_language_model
from dvp.optim import OPTIMIZERS, parameter_groups
from dvp.search import KArmedBandit
from dvp.tasks import TASKS
from dvp.vision import Vision

ANSWERS = 3129  # VQAv2
TEXT = 16  # tokens
ARMS = 5  # scored per search step
TOLERANCE = {"cpu": 1e-5, "cuda": 0.05}  # of logits against the plain path, in fp32 and in bf16

# BERT-base, T5-base and LLaMA-7B as their own config.json say; ViT-B/16 as the published configs use it.
CONFIGS = {
    "bert": BertConfig(),
    "t5": T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0),
    "llama": LlamaConfig(pad_token_id=0),
}
VISION = CLIPVisionConfig(patch_size=16, hidden_size=768, intermediate_size=3072, num_attention_heads=12)
MODES = ("train", "train_adapter", "search", "infer")


def build(language_model: str, mode: str, device: torch.device) -> DVP:
    """The model of one mode with random weights."""
    backbone = BACKBONES[language_model]
    config = CONFIGS[language_model]
    frozen = language_model == "llama"
    with torch.device(device):
        language = backbone.model_class._from_config(
            config,
            dtype=torch.bfloat16 if frozen and device.type == "cuda" else torch.float32,
            **backbone.model_options,
        )
        model = DVP(
            Vision(CLIPVisionModel(VISION)),
            VISION.hidden_size,
            backbone(language),
            ANSWERS,
            arms=config.num_hidden_layers if mode == "search" else 1,
            num_heads=16 if frozen else 12,
        )
        if frozen or mode == "train_adapter":
            adapt_language_model(model.backbone)
        return model


def random_batch(language_model: str, batch: int, image_tokens: str, device: torch.device) -> dict[str, Tensor]:
    """A batch of full-length texts and random images or image tokens."""
    ids = torch.randint(3, CONFIGS[language_model].vocab_size, (batch, TEXT), device=device)
    ids[:, -1] = CONFIGS[language_model].eos_token_id or 3
    size = VISION.image_size
    tokens = (size // VISION.patch_size) ** 2 + 1
    image = {
        "live": {"pixel_values": torch.randn(batch, 3, size, size, device=device)},
        "cache": {"image_tokens": torch.randn(batch, tokens, VISION.hidden_size, device=device)},
    }[image_tokens]
    targets = torch.rand(batch, ANSWERS, device=device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "targets": targets} | image


def make_step(
    model: DVP, mode: str, language_model: str, batch: int, image_tokens: str, device: torch.device
) -> Callable:
    """The function that does one whole step."""
    task = TASKS["vqa"]
    rows = random_batch(language_model, batch, image_tokens, device)
    half = random_batch(language_model, max(1, batch // 2), image_tokens, device)
    layers = model.num_layers
    optimizer = OPTIMIZERS["adamw"](parameter_groups(model.named_parameters(), 1e-4, 0.01, 10), 1e-4)
    bandit = KArmedBandit(layers)

    def infer() -> None:
        with torch.inference_mode():
            model.eval()(rows, layers // 2)

    def train(layer: int = layers // 2) -> None:
        task.loss(model.train()(rows, layer), rows["targets"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    def search() -> None:
        train(bandit.random_arm())
        arms = bandit.sample(ARMS)
        with torch.inference_mode():
            logits = model.eval().forward_arms(half, arms)
            scores = torch.stack([100 * task.score(logits[arm], half["targets"]).mean() for arm in arms])
            if not scores.is_meta:  # where operations are only counted there is nothing to read
                bandit.update(arms, scores.tolist())

    step = {"infer": infer, "search": search}.get(mode, train)

    def whole() -> None:
        with autocast(device):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return whole


def autocast(device: torch.device) -> AbstractContextManager:
    """bf16 on a GPU, as is elsewhere."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def seconds(step: Callable[[], None], repeats: int) -> list[float]:
    """Wall-clock seconds of each of `repeats` runs after one to warm up."""
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def count_flops(language_model: str, mode: str, batch: int, image_tokens: str) -> int:
    """Floating-point operations of one step, counted without computing it; attention through its math backend."""
    meta = torch.device("meta")
    step = make_step(build(language_model, mode, meta), mode, language_model, batch, image_tokens, meta)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


@torch.inference_mode()
def max_logit_difference(model: DVP, mode: str, language_model: str, image_tokens: str, device: torch.device) -> float:
    """The largest difference of the model's logits from the plain path's, over all arms that `mode` uses."""
    rows = random_batch(language_model, 2, "live", device)
    layers = range(model.num_layers) if mode == "search" else [model.num_layers // 2]
    model.eval()
    with autocast(device):
        fast = rows | ({"image_tokens": model.vision(rows).tokens} if image_tokens == "cache" else {})
        fast = model.forward_arms(fast, layers)
        with patch.object(VisualTokenCompressor, "forward", plain_prompt):
            plain = {layer: model(rows, layer) for layer in layers}
    return max(float((fast[layer] - plain[layer]).abs().max()) for layer in layers)


def plain_prompt(compressor: VisualTokenCompressor, query: Tensor, image_tokens: Tensor) -> Tensor:
    """The compressor as the paper writes it: all tokens projected, then attention with one query; (B, 1, D)."""
    inputs = ((compressor.query, query), (compressor.key, image_tokens), (compressor.value, image_tokens))
    q, k, v = (layer(x).unflatten(-1, (compressor.num_heads, -1)).transpose(1, 2) for layer, x in inputs)
    return compressor.merge(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def matmul_rate(device: torch.device) -> float:
    """The machine's own operations per second in a large matrix product, in the dtype that the steps use."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a = torch.randn(size, size, device=device, dtype=dtype)

    def multiply() -> None:
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2 * size**3 / min(seconds(multiply, 5))


def reset_peak(device: torch.device) -> None:
    """Forget the peak memory so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)  # hands what is kept back to the system, this once
        keep_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets VmHWM


def peak_bytes(device: torch.device) -> int:
    """Peak memory since `reset_peak`: of the device, or on a CPU of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def trained_bytes(model: nn.Module) -> int:
    """Bytes of the weights in a checkpoint."""
    return sum(tensor.nbytes for tensor in trained_state(model).values())


def measure(
    language_model: str,
    mode: str,
    image_tokens: str,
    batch: int,
    device: torch.device,
    repeats: int,
    compiled: bool = False,
) -> dict:
    """One row of the table; raises ValueError where its logits are not the plain path's."""
    torch.manual_seed(0)
    model = build(language_model, mode, device)
    if compiled:
        compile_parts(model.backbone, model.vision, graphs=device.type == "cuda")
    difference, tolerance = (
        max_logit_difference(model, mode, language_model, image_tokens, device),
        TOLERANCE[device.type],
    )
    if not difference <= tolerance:
        raise ValueError(f"{mode}, {image_tokens}: logits differ from the plain path by {difference} > {tolerance}")
    flops, rate = count_flops(language_model, mode, batch, image_tokens), matmul_rate(device)
    step = make_step(model, mode, language_model, batch, image_tokens, device)
    reset_peak(device)
    times = seconds(step, repeats)
    return {
        "language_model": language_model,
        "mode": mode,
        "image_tokens": image_tokens,
        "batch": batch,
        "compiled": compiled,
        "seconds_median": statistics.median(times),
        "seconds_min": min(times),
        "samples_per_second": batch / statistics.median(times),
        "gflop_per_sample": flops / batch / 1e9,
        "peak_bytes": peak_bytes(device),
        "checkpoint_bytes": trained_bytes(model),
        "matmul_share": flops / min(times) / rate,
        "max_logit_difference": difference,
        "tolerance": tolerance,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()}-core CPU",
    }


def main() -> None:
    """Measure every combination asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language-model", choices=CONFIGS, default="bert")
    parser.add_argument("--mode", default=",".join(MODES))
    parser.add_argument("--image-tokens", default="live,cache")
    parser.add_argument("--batch", default="8", help="sizes, separated by commas")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="as compile=True does it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.device == "cpu":
        keep_freed_memory()
    rows = []
    for batch in map(int, options.batch.split(",")):
        for mode in options.mode.split(","):
            for image_tokens in options.image_tokens.split(","):
                device = torch.device(options.device)
                row = measure(
                    options.language_model, mode, image_tokens, batch, device, options.repeats, options.compile
                )
                rows.append(row)
                print(
                    "  ".join(
                        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in row.items()
                    )
                )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
