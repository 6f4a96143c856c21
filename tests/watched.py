"""The addresses that a process and its children connected to, recorded by Python's audit events (`guard/sitecustomize.py`)."""

from __future__ import annotations

import json
import os
import socket
from ipaddress import ip_address
from pathlib import Path

GUARD = Path(__file__).parent / "guard"


def environment(log: Path, *folders: Path) -> dict[str, str]:
    """Return the environment in which every Python process records its connections in ``log``; ``folders`` are for imports."""
    return {"ALNNODE_TEST_CONNECTIONS": str(log), "PYTHONPATH": os.pathsep.join(map(str, (GUARD, *folders)))}


def connections(log: Path) -> list[tuple[str, str]]:
    """Return event and address of each connection, in their order."""
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def elsewhere(log: Path) -> list[tuple[str, str]]:
    """Return the connections and DNS queries that left this machine."""
    return [(event, address) for event, address in connections(log) if not _here(address)]


def _here(address: str) -> bool:
    if address.startswith("/") or address in {"localhost", "", "None", socket.gethostname(), socket.getfqdn()}:
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
