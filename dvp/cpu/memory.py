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
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)  # large blocks come from the heap too
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # which never shrinks
    # Room for half of the machine's memory, taken and freed at once, costs nothing until it is touched, and may then be
    # touched in huge pages. Asked for tensor by tensor, those would not cross from one tensor to the next.
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    libc.malloc.restype = ctypes.c_void_p
    if block := libc.malloc(ctypes.c_size_t(size)):
        libc.madvise(ctypes.c_void_p(block & -mmap.PAGESIZE), ctypes.c_size_t(size), mmap.MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(block))
