"""Our step beside the published one and beside ViLT's, in turns, in one run on one machine.

    python -m benchmarks.peers --batch 8,32 --json peers.json

The published step is written here as its authors' code computes it, with our modules and the same weights: a picture is
encoded at every use, every token is projected, attention is not fused, each of five drawn arms is a whole forward pass,
targets are filled label by label, AdamW takes the weights one by one, gradients are zeroed and not dropped. Its logits
are ours, which is checked first. Each contestant lives in a process of its own: ours is set up as run.py sets up its
own, the others as torch comes. It takes steps for 30 seconds to warm up, and in each of its turns for 5, at least one.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViltConfig, ViltForQuestionAnswering

from benchmarks import step
from benchmarks.meters import spread
from benchmarks.step import ARMS, TEXT, TOLERANCE, build, make_step, plain_prompt, random_batch
from dvp.backbones import State
from dvp.backbones.encoder import Encoder
from dvp.compressor import VisualTokenCompressor
from dvp.cpu.dropout import Dropout
from dvp.cpu.memory import keep_freed_memory
from dvp.model import DVP
from dvp.optim import parameter_groups
from dvp.search import KArmedBandit
from dvp.tasks import TASKS

CPU = torch.device("cpu")
LABELS = 3  # answers per question that have a score
VILT_SIZE = 384  # pixels, its usual
WARM_UP = 30  # seconds of steps; memory that is kept finds its place in the first of them
TURN = 5  # seconds of steps at least


def published(mode: str, batch: int) -> Callable[[], None]:
    """The function that does one whole step as the published code does; raises ValueError where its logits differ."""
    eager, own = build("bert", mode, CPU), build("bert", mode, CPU)
    eager.load_state_dict(own.state_dict())
    eager.backbone.model.set_attn_implementation("eager")
    require_same_logits(eager, own)
    return published_step(eager, mode, batch)


def published_step(model: DVP, mode: str, batch: int) -> Callable[[], None]:
    """One whole step of the published code with a model of ours."""
    task, layers = TASKS["vqa"], model.num_layers
    rows, half = (random_batch("bert", size, "live", CPU) for size in (batch, max(1, batch // 2)))
    groups = parameter_groups(model.named_parameters(), 1e-4, 0.01, 10)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), foreach=False)
    bandit = KArmedBandit(layers)

    def answer(rows: dict[str, Tensor], layer: int) -> tuple[Tensor, Tensor]:
        logits = published_logits(model, rows, layer)
        targets = torch.zeros(len(logits), step.ANSWERS)
        for row in range(len(logits)):
            for label in range(LABELS):
                targets[row, label] = 0.3
        return logits, targets

    def infer() -> None:
        with torch.no_grad():
            published_logits(model.eval(), rows, layers // 2)

    def train(layer: int = layers // 2) -> None:
        model.train()
        task.loss(*answer(rows, layer)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)  # as torch before 2.0 does it, of which the authors name 1.8.1

    def search() -> None:
        train(bandit.random_arm())
        arms, scores = bandit.sample(ARMS), []
        for arm in arms:  # in training mode, with dropout
            with torch.no_grad():
                scores.append(100 * task.score(*answer(half, arm)).mean().item())
        bandit.update(arms, scores)

    return {"infer": infer, "search": search}.get(mode, train)


def published_logits(model: DVP, rows: dict[str, Tensor], layer: int) -> Tensor:
    """Logits (B, C): pictures encoded, all their tokens projected, all of BERT's last layer computed."""
    with (
        patch.object(VisualTokenCompressor, "forward", plain_prompt),
        patch.object(Encoder, "run_layer", whole_layer),
        patch.object(Dropout, "forward", nn.Dropout.forward),
    ):
        return model(rows, layer)


def whole_layer(backbone: Encoder, index: int, state: State) -> State:
    """The state after a layer, at every position."""
    return replace(state, hidden=backbone.layers[index](state.hidden, state.mask))


def require_same_logits(eager: DVP, ours: DVP) -> None:
    """Nothing; raises ValueError where the published step's logits are not ours."""
    rows, layer = random_batch("bert", 2, "live", CPU), ours.num_layers // 2
    with torch.inference_mode():
        difference = (published_logits(eager.eval(), rows, layer) - ours.eval()(rows, layer)).abs().max().item()
    if not difference <= TOLERANCE["cpu"]:
        raise ValueError(f"the logits differ from the published step's by {difference}")


def vilt(mode: str, batch: int) -> Callable[[], None]:
    """The function that does one whole step of ViLT: one transformer over words and patches."""
    config = ViltConfig(image_size=VILT_SIZE, num_labels=step.ANSWERS)
    model = ViltForQuestionAnswering(config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.98), fused=True)
    ids = torch.randint(3, config.vocab_size, (batch, TEXT))
    rows = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    pixels = torch.randn(batch, 3, VILT_SIZE, VILT_SIZE)
    rows |= {"pixel_values": pixels, "pixel_mask": torch.ones(batch, VILT_SIZE, VILT_SIZE, dtype=torch.long)}
    targets = torch.rand(batch, step.ANSWERS)

    def infer() -> None:
        with torch.inference_mode():
            model.eval()(**rows)

    def train() -> None:
        logits = model.train()(**rows).logits
        (F.binary_cross_entropy_with_logits(logits, targets) * step.ANSWERS).backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"infer": infer, "train": train}[mode]


def ours(image_tokens: str, mode: str, batch: int) -> Callable[[], None]:
    """The function that does one whole step of ours."""
    return make_step(build("bert", mode, CPU), mode, "bert", batch, image_tokens, CPU)


CONTESTANTS: dict[str, Callable[[str, int], Callable[[], None]]] = {
    "published": published,
    "live": functools.partial(ours, "live"),
    "cache": functools.partial(ours, "cache"),
    "vilt": vilt,
}
OURS = ("live", "cache")
VILT_MODES = ("train", "infer")  # it neither searches nor has adapters
STEPS: dict[str, Callable[[], None]] = {}  # of the contestants that this process holds


def prepare(name: str, mode: str, batch: int) -> None:
    """Build a contestant in this process."""
    if name in OURS:
        keep_freed_memory()
    torch.manual_seed(0)
    STEPS[name] = CONTESTANTS[name](mode, batch)


def take_turn(name: str, at_least: float) -> float:
    """Seconds per step of a contestant that this process holds, which takes steps for `at_least` seconds."""
    start, steps, passed = time.perf_counter(), 0, 0.0
    while steps == 0 or passed < at_least:
        STEPS[name]()
        steps, passed = steps + 1, time.perf_counter() - start
    return passed / steps


def in_turns(mode: str, batch: int, repeats: int) -> dict[str, list[float]]:
    """Seconds per step of every contestant in each of its `repeats` turns."""
    names = [name for name in CONTESTANTS if name != "vilt" or mode in VILT_MODES]
    with ExitStack() as stack:
        processes = {name: stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))) for name in names}
        for name, process in processes.items():
            process.submit(prepare, name, mode, batch).result()
            process.submit(take_turn, name, WARM_UP).result()
        turns = [
            {n: process.submit(take_turn, n, TURN).result() for n, process in processes.items()} for _ in range(repeats)
        ]
    return {name: [taken[name] for taken in turns] for name in names}


def times_faster(times: dict[str, list[float]]) -> dict[str, list[float]]:
    """How many times faster than the published step each other was, turn by turn: what slows a turn slows both."""
    slow = times["published"]
    return {
        name: [published / own for published, own in zip(slow, taken, strict=True)]
        for name, taken in times.items()
        if name != "published"
    }


def main() -> None:
    """Measure and print a row per mode and batch size: medians over the turns, and the least and the most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default=",".join(step.MODES))
    parser.add_argument("--batch", default="8", help="sizes, separated by commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for batch in map(int, options.batch.split(",")):
        for mode in options.mode.split(","):
            times = in_turns(mode, batch, options.repeats)
            faster = times_faster(times)
            rows.append({"mode": mode, "batch": batch, "seconds": times, "faster": faster})
            seconds = "  ".join(f"{name} {spread(taken)} s" for name, taken in times.items())
            ratios = "  ".join(f"{name} {spread(taken)} x" for name, taken in faster.items())
            print(f"{mode} {batch}: {seconds} | against published: {ratios}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
