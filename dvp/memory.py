"""Freed memory that a CPU run keeps, in huge pages."""

import ctypes
import mmap
import os
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
        # Room for half of the machine's memory, taken and freed at once, costs nothing until it is touched, and may
        # then be touched in huge pages. Asked for tensor by tensor, those would not cross from one tensor to the next.
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        if block := libc.malloc(size):
            start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
            libc.madvise(start, block + size - start, mmap.MADV_HUGEPAGE)
            libc.free(block)


def give_back_freed_memory() -> None:
    """Hand what is kept back to the system, this once."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = libc.malloc_trim.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc
