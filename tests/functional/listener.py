"""Start one listening process: ``python listener.py CONFIG``; prints READY when it accepts connections."""

import sys
from pathlib import Path

from alnnode import logs
from alnnode.receive.scp import run_listener
from alnnode.settings import load

if __name__ == "__main__":
    settings = load(Path(sys.argv[1]))
    logs.configure(settings.logging)
    run_listener(settings, lambda port: print(f"READY {port}", flush=True))  # noqa: T201
