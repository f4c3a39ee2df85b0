"""What a step costs of a machine: seconds, peak memory, and how often the host waits for the device."""

import ctypes
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from dvp.checkpoints import trained_state
from dvp.cpu.memory import keep_freed_memory

# What the host waits in, by how torch's profiler calls it. `item()` and `bool()` of a tensor end in the first one.
WAITS = ("aten::_local_scalar_dense", "cudaStreamSynchronize", "Memcpy DtoH")


def seconds(step: Callable[[], None], repeats: int) -> list[float]:
    """Wall-clock seconds of each of `repeats` runs after one to warm up."""
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def spread(values: list[float]) -> str:
    """The median, and in brackets the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def host_waits(step: Callable[[], None], device: torch.device) -> dict[str, int]:
    """How often one step, warm, makes the host wait, by what it waits in; on a CPU only `item()` shows."""
    step()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        step()
    events = profiler.key_averages()
    return {name: sum(event.count for event in events if event.key.startswith(name)) for name in WAITS}


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
