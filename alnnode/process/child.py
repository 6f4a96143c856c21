"""Start a program that ends with its parent: ``python -m alnnode.process.child SIGNAL PROGRAM ARGUMENT…``.

A supervisor that is killed cannot stop its children, but the kernel can (Linux, ``PR_SET_PDEATHSIG``). The setting survives ``execv``, so
this small process sets it and then becomes the program. On other systems the program starts without it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(signum: signal.Signals, parent: int) -> None:
    """Have the kernel send ``signum`` to this process when the thread that started it ends.

    Args:
        signum: the signal.
        parent: process id of the parent when it started this process.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    if os.getppid() != parent:  # the parent ended before the call
        os.kill(os.getpid(), signum)


def protect_memory_and_files() -> None:
    """Keep this process and its children from writing core dumps, and files that other users may read: both hold patient data.

    The limit is one byte. A limit of zero does not apply to a core_pattern that is a pipe; one byte ends every dump (fs/coredump.c).
    """
    os.umask(0o077)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def command(signum: signal.Signals, *arguments: str) -> list[str]:
    """Return the command line that runs ``arguments`` as a child of this process, which gets ``signum`` when this process ends."""
    return [sys.executable, "-m", "alnnode.process.child", signum.name, str(os.getpid()), *arguments]


def main() -> None:
    """Bind this process to its parent, and become the program."""
    name, parent, *arguments = sys.argv[1:]
    end_with_parent(signal.Signals[name], int(parent))
    os.execvp(arguments[0], arguments)  # noqa: S606 - a program is run, not a shell


if __name__ == "__main__":
    main()
