"""Freed memory that a CPU run keeps. (Large pages for it are asked for in dvp/__init__.py.)"""

import ctypes
import platform

# Of <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for its next allocations; nothing where the C library is not glibc.

    A step on a CPU frees hundreds of MB of activations and gradients that the next one asks for again. By default glibc
    hands them back to the system, which zeroes them page by page when they are touched anew (benchmarks/README.md).
    """
    if libc := _glibc():
        libc.mallopt(M_MMAP_MAX, 0)  # large blocks come from the heap too
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # which never shrinks


def give_back_freed_memory() -> None:
    """Hand what is kept back to the system, this once."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
