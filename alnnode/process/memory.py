"""Give the memory of large arrays back to the operating system when they are freed."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3  # <malloc.h> of glibc
LARGE = 4 << 20  # bytes: the slices of a series and the grids of an axilla are larger, the arrays of one node smaller


def release_large_arrays() -> bool:
    """Let the C library of this process take every block of `LARGE` and more from the operating system, and return whether it can.

    By default glibc raises its threshold to the largest such block that was freed, up to 32 MiB (mallopt(3)). From then on the arrays of a
    series are parts of its heap, which keeps their memory after they are freed: each worker that once analysed a series would hold it.
    Other C libraries have no such threshold.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE))
