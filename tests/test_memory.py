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
from dvp.memory import keep_freed_memory

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
for _ in range(12):
    before = faults()
    blocks = [torch.ones(2**24) for _ in range(2)]  # 64 MB each
    huge = in_huge_pages(blocks[1])
    del blocks
    after = faults()
print(after - before, huge)
"""

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is kept is glibc's to decide")


def last_step(*words: str) -> list[str]:
    """Of the last of a dozen equal steps (the first few still find their places): the pages it has to ask the system
    for, and whether its memory may lie in huge ones."""
    run = [sys.executable, "-c", SCRIPT, *words]
    return subprocess.run(run, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=True).stdout.split()


@needs_glibc
def test_a_step_finds_the_memory_of_the_last_one() -> None:
    (kept, _), (plain, _) = last_step("keep"), last_step()
    assert int(kept) < 100 and int(plain) > 1000


@needs_glibc
@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists(), reason="a system without huge pages"
)
def test_the_memory_of_a_step_may_lie_in_huge_pages() -> None:
    assert (last_step("keep")[1], last_step()[1]) == ("True", "False")
