"""Start a program that ends with its parent: ``python -m alnnode.process.child SIGNAL PROGRAM ARGUMENT…``.

A supervisor that is killed cannot stop its children; the kernel can (Linux, ``PR_SET_PDEATHSIG``). The setting survives
``execv``, so this small process becomes the program itself. Elsewhere the program is started without it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(signum: signal.Signals, parent: int) -> None:
    """Let the kernel send ``signum`` to this process when the thread that started it ends.

    Args:
        signum: the signal.
        parent: process id of the parent when it started this process.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), signum)


def keep_private() -> None:
    """Let this process and those it starts leave no image of their memory behind, and no file that others may read.

    A limit of one byte: zero would not bind a core_pattern that is a pipe, while one byte ends every dump (fs/coredump.c).
    """
    os.umask(0o077)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def command(signum: signal.Signals, *arguments: str) -> list[str]:
    """Return the command line that starts ``arguments`` as a child of this process and ends with it."""
    return [sys.executable, "-m", "alnnode.process.child", signum.name, str(os.getpid()), *arguments]


def main() -> None:
    """Become the program."""
    name, parent, *arguments = sys.argv[1:]
    end_with_parent(signal.Signals[name], int(parent))
    os.execvp(arguments[0], arguments)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
