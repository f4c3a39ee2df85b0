"""Seconds, floating-point operations and bytes of one step at real size, with random weights, no downloads.

    python -m benchmarks.step --language-model bert --mode train,train_adapter,search,infer --batch 8 \
        --image-tokens live,cache --json out.json

Prints a table and writes a list of rows. A search step is one update, then five drawn arms scored on half a batch. Each
row says how far its logits are from the plain path: images encoded, every token projected, one arm at a time.
"""

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, T5Config

from benchmarks.image_tokens import IMAGE_TOKENS
from benchmarks.meters import host_waits, matmul_rate, peak_bytes, reset_peak, seconds, trained_bytes
from dvp.backbones import BACKBONES, LanguageBackbone, load_backbone
from dvp.build import compile_parts
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


def build(language_model: str, mode: str, device: torch.device, quantize: str | None = None) -> DVP:
    """The model of one mode with random weights; raises ValueError where weights in bits would be trained."""
    config = CONFIGS[language_model]
    frozen = language_model == "llama"
    adapted = frozen or mode == "train_adapter"
    if quantize and not adapted:
        raise ValueError(f"--quantize {quantize} is for a frozen language model: add --mode train_adapter.")
    with torch.device(device):
        dtype = torch.bfloat16 if frozen and device.type == "cuda" else torch.float32
        model = DVP(
            Vision(CLIPVisionModel(VISION)),
            VISION.hidden_size,
            random_backbone(language_model, dtype, quantize),
            ANSWERS,
            arms=config.num_hidden_layers if mode == "search" else 1,
            num_heads=16 if frozen else 12,
        )
        if adapted:
            adapt_language_model(model.backbone)
        return model


def random_backbone(language_model: str, dtype: torch.dtype, quantize: str | None = None) -> LanguageBackbone:
    """A language model with random weights; in bits, it goes over a folder, from which a run would load it."""
    backbone = BACKBONES[language_model]
    model = backbone.model_class._from_config(CONFIGS[language_model], dtype=dtype, **backbone.model_options)
    if not quantize:
        return backbone(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        del model  # before the one in bits is made
        (Path(folder) / backbone.vocabulary.file).touch()  # a folder without it is refused; no text is read here
        return load_backbone(folder, dtype=dtype, quantize=quantize)


def random_batches(
    language_model: str, batch: int, image_tokens: str, device: torch.device
) -> Callable[[int], dict[str, Tensor]]:
    """What gives a step its batch, of so many rows: the same full-length texts, and random images or image tokens."""
    ids = torch.randint(3, CONFIGS[language_model].vocab_size, (batch, TEXT), device=device)
    ids[:, -1] = CONFIGS[language_model].eos_token_id or 3
    texts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    texts["targets"] = torch.rand(batch, ANSWERS, device=device)
    fetch = IMAGE_TOKENS[image_tokens](batch, VISION, device)
    return lambda rows: {name: values[:rows] for name, values in texts.items()} | fetch(rows)


def random_batch(language_model: str, batch: int, image_tokens: str, device: torch.device) -> dict[str, Tensor]:
    """One such batch."""
    return random_batches(language_model, batch, image_tokens, device)(batch)


def make_step(
    model: DVP, mode: str, language_model: str, batch: int, image_tokens: str, device: torch.device
) -> Callable:
    """The function that does one whole step."""
    task = TASKS["vqa"]
    next_batch = random_batches(language_model, batch, image_tokens, device)
    layers = model.num_layers
    optimizer = OPTIMIZERS["adamw"](parameter_groups(model.named_parameters(), 1e-4, 0.01, 10), 1e-4)
    bandit = KArmedBandit(layers)

    def infer() -> None:
        with torch.inference_mode():
            model.eval()(next_batch(batch), layers // 2)

    def train(layer: int = layers // 2) -> None:
        rows = next_batch(batch)
        task.loss(model.train()(rows, layer), rows["targets"]).backward()
        optimizer.step()
        optimizer.zero_grad()

    def search() -> None:
        train(bandit.random_arm())
        arms, half = bandit.sample(ARMS), next_batch(max(1, batch // 2))
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


def count_flops(language_model: str, mode: str, batch: int, image_tokens: str) -> int:
    """Floating-point operations of one step, counted without computing it; attention through its math backend."""
    meta, image_tokens = torch.device("meta"), "live" if image_tokens == "live" else "cache"
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
        fast = rows | ({"image_tokens": model.vision(rows).tokens} if image_tokens != "live" else {})
        fast = model.forward_arms(fast, layers)
        with patch.object(VisualTokenCompressor, "forward", plain_prompt):
            plain = {layer: model(rows, layer) for layer in layers}
    return max(float((fast[layer] - plain[layer]).abs().max()) for layer in layers)


def plain_prompt(compressor: VisualTokenCompressor, query: Tensor, image_tokens: Tensor) -> Tensor:
    """The compressor as the paper writes it: all tokens projected, then attention with one query; (B, 1, D)."""
    inputs = ((compressor.query, query), (compressor.key, image_tokens), (compressor.value, image_tokens))
    q, k, v = (layer(x).unflatten(-1, (compressor.num_heads, -1)).transpose(1, 2) for layer, x in inputs)
    return compressor.merge(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def measure(
    language_model: str,
    mode: str,
    image_tokens: str,
    batch: int,
    device: torch.device,
    repeats: int,
    *,
    compiled: bool = False,
    quantize: str | None = None,
    profiled: bool = False,
) -> dict:
    """One row of the table; raises ValueError where its logits are not the plain path's."""
    torch.manual_seed(0)
    model = build(language_model, mode, device, quantize)
    if compiled:
        compile_parts(model.backbone, model.vision, graphs=device.type == "cuda")
    tolerance = TOLERANCE[device.type]
    difference = max_logit_difference(model, mode, language_model, image_tokens, device)
    if not difference <= tolerance:
        raise ValueError(f"{mode}, {image_tokens}: logits differ from the plain path by {difference} > {tolerance}")
    flops, rate = count_flops(language_model, mode, batch, image_tokens), matmul_rate(device)
    step = make_step(model, mode, language_model, batch, image_tokens, device)
    reset_peak(device)
    times, peak = seconds(step, repeats), peak_bytes(device)
    return {
        "language_model": language_model,
        "mode": mode,
        "image_tokens": image_tokens,
        "batch": batch,
        "compiled": compiled,
        "quantize": quantize,
        "seconds_median": statistics.median(times),
        "seconds_min": min(times),
        "samples_per_second": batch / statistics.median(times),
        "gflop_per_sample": flops / batch / 1e9,
        "peak_bytes": peak,
        "checkpoint_bytes": trained_bytes(model),
        "matmul_share": flops / min(times) / rate,
        "max_logit_difference": difference,
        "tolerance": tolerance,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()}-core CPU",
    } | ({"host_waits": host_waits(step, device)} if profiled else {})


def main() -> None:
    """Measure every combination asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language-model", choices=CONFIGS, default="bert")
    parser.add_argument("--mode", default=",".join(MODES))
    parser.add_argument("--image-tokens", default="live,cache", help=f"of {', '.join(IMAGE_TOKENS)}")
    parser.add_argument("--batch", default="8", help="sizes, separated by commas")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="as compile=True does it")
    parser.add_argument("--quantize", choices=("8bit", "4bit"), help="a frozen language model, as quantize= does it")
    parser.add_argument("--profile", action="store_true", help="count in one step what the host waits in")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.device == "cpu":
        keep_freed_memory()
    device, rows = torch.device(options.device), []
    how = {"compiled": options.compile, "quantize": options.quantize, "profiled": options.profile}
    asked = (words.split(",") for words in (options.batch, options.mode, options.image_tokens))
    for batch, mode, image_tokens in itertools.product(*asked):
        row = measure(options.language_model, mode, image_tokens, int(batch), device, options.repeats, **how)
        rows.append(row)
        told = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
        print("  ".join(told), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
