"""The memory that Python allocates in a block of a test."""

import tracemalloc
from contextlib import contextmanager

MIB = 1 << 20


@contextmanager
def at_most(size: int):
    """Check the memory that Python allocates at most during a block."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size, f"{peak / MIB:.1f} MiB"
