"""A reload that is asked for while the node still starts (`systemctl reload` beside a restart) does not end it, and is done."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from listening import free_port, wait_for

from alnnode.db import schema
from alnnode.settings import load


def blocks_hangup(pid: int) -> bool:
    (mask,) = (line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk:"))
    return bool(int(mask, 16) & 1 << (signal.SIGHUP - 1))


def test_a_reload_during_the_start_waits_for_the_start(tmp_path) -> None:
    config, log = tmp_path / "config.toml", tmp_path / "log"
    config.write_text(
        f'[node]\ndata_dir = "{tmp_path}/data"\n[listener]\nport = {free_port()}\n[web]\nport = {free_port()}\n',
        encoding="utf-8",
    )
    schema.migrate(load(config).database_url)
    with log.open("w") as errors:
        node = subprocess.Popen([sys.executable, "-m", "alnnode", "web", "--config", str(config)], stderr=errors)
    try:
        wait_for(lambda: blocks_hangup(node.pid) or "node_ready" in log.read_text(), 120)
        assert "node_ready" not in log.read_text(), "the node never held the signal back"
        os.kill(node.pid, signal.SIGHUP)
        wait_for(lambda: node.poll() is not None or "configuration_reloaded" in log.read_text(), 120)
        assert node.poll() is None, "the signal ended the node"
        assert not blocks_hangup(node.pid)
    finally:
        node.terminate()
        node.wait(120)
