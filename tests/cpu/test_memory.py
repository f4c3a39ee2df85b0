"""A CPU run keeps what it frees: the next step finds its memory where the last one left it, in huge pages."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import re, resource, sys
from pathlib import Path
import torch
from dvp.cpu.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def in_huge_pages(block):
    areas = Path("/proc/self/smaps").read_text().split("VmFlags:")
    for area, flags in zip(areas, areas[1:]):
        first, last = (int(side, 16) for side in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) ", area, re.MULTILINE)[-1])
        if first <= block.data_ptr() < last:
            return "hg" in flags.splitlines()[0].split()

if "keep" in sys.argv:
    keep_freed_memory()
torch.set_num_threads(1)
for _ in range(6):
    before = faults()
    blocks = [torch.ones(10**7) for _ in range(2)]  # 40 MB each
    huge = in_huge_pages(blocks[1])
    del blocks
    after = faults()
print(after - before, huge)
"""


def last_step(*words: str) -> tuple[int, bool]:
    """Pages that the last of six equal steps asks the system for, and whether its memory may lie in huge ones."""
    run = [sys.executable, "-c", SCRIPT, *words]
    ran = subprocess.run(run, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=True)
    faults, huge = ran.stdout.split()
    return int(faults), huge == "True"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is kept is glibc's to decide")
def test_a_step_finds_the_memory_of_the_last_one_and_in_huge_pages_where_there_are_any() -> None:
    (kept, huge), (asked, plain) = last_step("keep"), last_step()
    assert kept < 100 and asked > 1000
    assert (huge, plain) == (Path("/sys/kernel/mm/transparent_hugepage").exists(), False)
