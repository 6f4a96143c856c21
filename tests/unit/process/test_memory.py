"""A process gives the memory of freed arrays back to the operating system."""

import subprocess
import sys

import pytest

# An array of 30 MiB that is freed raises the threshold of glibc. The small block after the next arrays keeps the heap from shrinking.
PROGRAM = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def filled(size):
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    return block

libc.free(filled(30 << 20))
before = resident()
blocks = [filled(20 << 20) for _ in range(5)]
small = filled(1 << 18)
for block in blocks:
    libc.free(block)
if "return" in sys.argv:
    from alnnode.process.memory import return_free_memory
    assert return_free_memory()
print(resident() - before)
"""


def kept(*options: str) -> int:
    """Bytes that a process keeps after it has freed 100 MiB."""
    return int(subprocess.run([sys.executable, "-c", PROGRAM, *options], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_arrays_leave_the_process() -> None:
    assert kept() > 90 << 20  # otherwise this test shows nothing
    assert kept("return") < 5 << 20
