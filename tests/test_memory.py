"""A CPU run keeps what it frees: the next step finds its memory where the last one left it."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import dvp
import torch
from dvp.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if "keep" in sys.argv:
    keep_freed_memory()
torch.set_num_threads(1)
for _ in range(12):
    before = faults()
    blocks = [torch.ones(2**24) for _ in range(2)]  # 64 MB each
    del blocks
    after = faults()
print(after - before)
"""


def faults_of_a_step(*words: str, **environment: str) -> int:
    """Pages that the last of a dozen equal steps has to ask the system for; the first few still find their places."""
    run = [sys.executable, "-c", SCRIPT, *words]
    return int(subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is kept is glibc's to decide")
def test_a_step_finds_the_memory_of_the_last_one() -> None:
    plain = {"PYTHONPATH": ".", "THP_MEM_ALLOC_ENABLE": "0"}
    assert faults_of_a_step("keep", **plain) < 100
    assert faults_of_a_step(**plain) > 1000
