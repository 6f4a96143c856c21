"""What a process and all its children connected to, noted by Python's audit events (`guard/sitecustomize.py`)."""

from __future__ import annotations

import json
import os
import socket
from ipaddress import ip_address
from pathlib import Path

GUARD = Path(__file__).parent / "guard"


def environment(log: Path, *folders: Path) -> dict[str, str]:
    """The environment that makes every Python below it write to ``log``; ``folders`` are for imports."""
    return {"ALNNODE_TEST_CONNECTIONS": str(log), "PYTHONPATH": os.pathsep.join(map(str, (GUARD, *folders)))}


def connections(log: Path) -> list[tuple[str, str]]:
    """Event and address, in their order."""
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def elsewhere(log: Path) -> list[tuple[str, str]]:
    """Those that left this machine, or asked for the name of another."""
    return [(event, address) for event, address in connections(log) if not _here(address)]


def _here(address: str) -> bool:
    if address.startswith("/") or address in {"localhost", "", "None", socket.gethostname(), socket.getfqdn()}:
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
