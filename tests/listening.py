"""A listener for tests: real processes that share a port, a spool and a database."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from alnnode.analyse.jobs import Jobs
from alnnode.db import engine as engines
from alnnode.receive.received_series import ReceivedSeries
from alnnode.settings import load
from alnnode.spool.spool import Spool

PROGRAM = Path(__file__).parent / "functional" / "listener.py"


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not true after {seconds} s"
        time.sleep(0.02)
    return found


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Listener:
    """Listening processes that share a port, a spool and a database."""

    def __init__(self, folder: Path, url: str, extra: str = "", retention: str = "min_free_mb = 0", internal: str = "") -> None:
        self.port = free_port()
        self._config = folder / "config.toml"
        self._config.write_text(
            f'[node]\ndata_dir = "{folder}"\n[database]\nurl = "{url}"\n[logging]\nformat = "console"\nlevel = "info"\n'
            f"[retention]\n{retention}\n[internal]\n{internal}\n[listener]\nport = {self.port}\n{extra}\n",
            encoding="utf-8",
        )
        self.settings = load(self._config)
        self.log = folder / "log"
        self.processes: list[subprocess.Popen] = []
        database = engines.create(url)
        self.jobs, self.received = Jobs(database), ReceivedSeries(database)
        self.spool = Spool(folder / "spool")

    def start(self) -> subprocess.Popen:
        with self.log.open("ab") as log:
            process = subprocess.Popen([sys.executable, str(PROGRAM), str(self._config)], stdout=subprocess.PIPE, stderr=log)
        assert process.stdout.readline() == f"READY {self.port}\n".encode(), self.log.read_text()
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            process.wait(60)
            process.stdout.close()

    def associate(
        self, contexts=((CTImageStorage, ["1.2.840.10008.1.2.1"]),), called="ALNNODE", calling="CT1", tls_args=None, source=""
    ):
        entity = AE(calling)
        for abstract, syntaxes in contexts:
            entity.add_requested_context(abstract, syntaxes)
        entity.dimse_timeout = entity.acse_timeout = entity.network_timeout = 30
        return entity.associate("127.0.0.1", self.port, ae_title=called, tls_args=tls_args, bind_address=(source, 0))

    def recorded(self) -> int:
        return sum(job.instances for job in self.jobs.list())

    def paths(self):
        return list((self.spool.root / "objects").rglob("*.dcm"))
