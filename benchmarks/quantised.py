"""A frozen LLaMA's weights in few bits, by bitsandbytes and by torchao: error, megabytes, seconds, on a CPU's thread.

    pip install -r requirements-quantize.txt torchao
    python -m benchmarks.quantised --repeats 5

4 layers of 1024 with random weights, fp32, adapters, 32 texts of 16 tokens. Every way lives in a process of its own,
and they take turns. Seconds are the processor's, which other programs disturb less than the clock's.
"""

import argparse
import io
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, TorchAoConfig

from benchmarks import step
from benchmarks.meters import peak_bytes, reset_peak, spread

CPU = torch.device("cpu")
SIZES = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 4, "num_attention_heads": 16}
LLAMA = LlamaConfig(vocab_size=1000, pad_token_id=0, **SIZES)
VISION = CLIPVisionConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1)
BATCH = 32
MODES = ("train_adapter", "infer")
# Name -> `quantize`, and torchao's configuration where it takes the place of bitsandbytes'
WAYS: dict[str, tuple[str | None, str, dict[str, Any]]] = {
    "fp32": (None, "", {}),
    "bitsandbytes 8bit": ("8bit", "", {}),
    "torchao int8": ("8bit", "Int8WeightOnlyConfig", {}),
    "bitsandbytes 4bit": ("4bit", "", {}),
    "torchao int4": ("4bit", "Int4WeightOnlyConfig", {"group_size": 32}),
    "torchao int4, a byte each": ("4bit", "IntxWeightOnlyConfig", {"weight_dtype": torch.int4}),
}
STEPS: dict[str, Callable[[], None]] = {}  # by mode, of the way that this process holds


def prepare(name: str) -> dict[str, float]:
    """Build a way in this process; returns its error, its megabytes, and what a training step takes beside them."""
    torch.set_num_threads(1)
    quantize, torchao, options = WAYS[name]
    with ExitStack() as stack:
        stack.enter_context(patch.dict(step.CONFIGS, llama=LLAMA))
        stack.enter_context(patch.object(step, "VISION", VISION))
        if torchao:
            from torchao import quantization  # here alone: the project does without it

            config = TorchAoConfig(getattr(quantization, torchao)(**options))
            stack.enter_context(patch("dvp.backbones._bits", lambda quantize, dtype: config))
        whole, held = hidden_states(None), hidden_states(quantize)
        model = step.build("llama", "train_adapter", CPU, quantize)
        STEPS.update({mode: step.make_step(model, mode, "llama", BATCH, "cache", CPU) for mode in MODES})
    STEPS["train_adapter"]()  # makes the optimiser's moments
    reset_peak(CPU)
    before = peak_bytes(CPU)
    STEPS["train_adapter"]()
    taken = {"frozen MB": frozen_bytes(model.backbone) / 1e6, "step MB": (peak_bytes(CPU) - before) / 1e6}
    return {"error": float((held - whole).norm() / whole.norm())} | taken


@torch.no_grad()
def hidden_states(quantize: str | None) -> torch.Tensor:
    """The last of them, of the same weights and texts whatever holds them."""
    torch.manual_seed(0)
    texts = torch.randint(3, LLAMA.vocab_size, (8, step.TEXT))
    return step.random_backbone("llama", torch.float32, quantize).model.eval()(texts).last_hidden_state


def frozen_bytes(model: nn.Module) -> int:
    """Bytes of the weights that are not trained, with their scales, as a file would hold them."""
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    torch.save({name: value for name, value in model.state_dict().items() if name not in trained}, file := io.BytesIO())
    return file.tell()


def take_turn(mode: str) -> float:
    """Seconds of the processor for one step."""
    start = time.process_time()
    STEPS[mode]()
    return time.process_time() - start


def main() -> None:
    """Print a row for each way; of the seconds the median, least and most. One that cannot be built says why."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats, seconds = parser.parse_args().repeats, defaultdict(list)
    with ExitStack() as stack:
        processes = {name: stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))) for name in WAYS}
        prepared = {}
        for name, process in processes.items():
            prepared[name] = process.submit(prepare, name)
            prepared[name].exception()  # one after the other, whatever comes of it
        built = {name: future.result() for name, future in prepared.items() if not future.exception()}
        for name, mode in [(name, mode) for _ in range(repeats) for name in built for mode in MODES]:
            seconds[name, mode].append(processes[name].submit(take_turn, mode).result())
    for name, future in prepared.items():
        told = [f"{key} {value:.3g}" for key, value in built.get(name, {}).items()]
        told += [f"{mode} {spread(seconds[name, mode])} s" for mode in MODES if name in built]
        print(f"{name}: {'  '.join(told) or repr(future.exception())}")


if __name__ == "__main__":
    main()
