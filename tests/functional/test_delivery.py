"""Faults between a job and the PACS: real Redis, real worker processes and a real SCP; only the analysis is a stand-in."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pynetdicom import AE, AllStoragePresentationContexts, evt

from alnnode.analyse.jobs import Jobs
from alnnode.analyse.operator_actions import OperatorActions
from alnnode.db import engine, requeue, schema
from alnnode.db.rows import NewInstance, SeriesFacts
from alnnode.deliver.deliveries import Deliveries
from alnnode.errors import ServiceError
from alnnode.node import private_redis
from alnnode.process.supervised import SupervisedProcess
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import JobState
from alnnode.settings import load
from alnnode.task_queue import ANALYSE, DELIVER, Producer

pytestmark = pytest.mark.redis
redis = pytest.importorskip("redis")
WORKER = Path(__file__).with_name("fake_worker.py")
ENDS = {JobState.DELIVERED, JobState.NOT_ANALYSED, JobState.FAILED}


def wait_for(condition, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {condition}")


class Pacs:
    """A C-STORE SCP on loopback; it answers each of ``statuses`` once before it answers success."""

    def __init__(self, port: int = 0) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.statuses: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        entity = AE("PACS")
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax)
        self._server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        self.port = self._server.server_address[1]

    def _store(self, event) -> int:
        self.hold.wait(30)
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == 0x0000:
            self.received.append((str(event.request.AffectedSOPInstanceUID), event.request.DataSet.getvalue()))
        return status

    @property
    def uids(self) -> set[str]:
        return {uid for uid, _ in self.received}

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()


class Node:
    """Database, Redis and worker processes of one test, without a listener."""

    def __init__(self, folder: Path, destinations: dict[str, int], max_attempts: int = 3) -> None:
        self.orders = folder / "orders"
        self.orders.mkdir()
        self.config = folder / "config.toml"
        tables = "".join(
            f'[[destinations]]\nname = "{name}"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\ntimeout = 5\n'
            for name, port in destinations.items()
        )
        self.config.write_text(
            f'[node]\ndata_dir = "{folder}"\n'
            f"[internal]\nanalysis_attempts = {max_attempts}\nretry_first = 0.2\nretry_longest = 1\n"
            f'[completion]\nquiet = 0.1\n[logging]\nformat = "console"\n{tables}',
            encoding="utf-8",
        )
        self.settings = load(self.config)
        schema.migrate(self.settings.database_url)
        database = engine.create(self.settings.database_url, 5)
        self.jobs, self.received, self.deliveries = Jobs(database), ReceivedSeries(database), Deliveries(database)
        self.operator = OperatorActions(database)
        self.producer = Producer(self.settings)
        self.redis = SupervisedProcess(
            "redis",
            lambda: private_redis.prepare(self.settings.redis_socket),
            os.environ,
            ready=lambda: private_redis.answers(self.settings.redis_socket),
        )
        self.workers: dict[str, SupervisedProcess] = {}
        self._stop = threading.Event()
        self._sweep = threading.Thread(target=self._sweeping)
        self._number = 0

    def start(self, *queues: str) -> None:
        if self.redis.pid is None:
            self.redis.start()
            wait_for(self.redis.is_ready)
        environment = {
            **os.environ,
            "ALNNODE_CONFIG": str(self.config),
            "FAKE_ORDERS": str(self.orders),
            "OMP_NUM_THREADS": "1",
        }
        for queue in queues:
            self.workers[queue] = SupervisedProcess(queue, [sys.executable, str(WORKER), queue], environment)
            self.workers[queue].start()
        for part in self.workers.values():
            wait_for(part.is_ready)
        if not self._sweep.is_alive():
            self._sweep.start()

    def _sweeping(self) -> None:
        """Do what the sweep does with jobs and deliveries; its own tests are elsewhere."""
        while not self._stop.wait(0.1):
            try:
                lost = self.jobs.lost(queued=lambda: self.producer.queued(ANALYSE))
                for job in (*self.received.complete_due(self.settings.completion, lambda _: None), *lost):
                    self.producer.enqueue_analysis(job)
                for delivery in self.deliveries.due(queued=lambda: self.producer.queued(DELIVER)):
                    self.producer.enqueue_delivery(delivery)
            except ServiceError:
                continue

    def stop(self) -> None:
        self._stop.set()
        if self._sweep.is_alive():
            self._sweep.join()
        for part in (*self.workers.values(), self.redis):
            part.wait_or_kill(0)  # killed at once; the orderly stop is tested with the complete node

    def series(self) -> str:
        """Receive one series of one image; return its job's id when there is one."""
        self._number += 1
        uid = f"1.2.3.{self._number}"
        now = datetime.now(UTC)
        self.received.record_instances(
            [
                NewInstance(
                    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                    sop_instance_uid=f"{uid}.1",
                    series_uid=uid,
                    study_uid="1.2.3",
                    transfer_syntax_uid="1.2.840.10008.1.2.1",
                    path=f"{self._number}.dcm",
                    sha256=f"{self._number:064x}",
                    size=1,
                    received_at=now,
                    facts=SeriesFacts(modality="CT", announced=1),
                )
            ]
        )
        return next(job.job_id for job in self.jobs.list() if job.series_uid == uid)

    def runs(self) -> list[int]:
        return [int(path.read_text()) for path in sorted(self.orders.glob("run-*")) if path.read_text()]

    def end(self, job_id: str, seconds: float = 60):
        return wait_for(lambda: (job := self.jobs.get(job_id)).state in ENDS and job, seconds)


@pytest.fixture
def pacs():
    server = Pacs()
    yield server
    server.close()


@pytest.fixture
def make_node(tmp_path, monkeypatch):
    # The time after which the sweep enqueues a task again; the node waits longer, because nothing depends on it.
    monkeypatch.setattr(requeue, "REQUEUE_AFTER", timedelta(seconds=1))
    nodes = []

    def make(**options) -> Node:
        nodes.append(Node(tmp_path, **options))
        return nodes[-1]

    yield make
    for node in nodes:
        node.stop()


def test_results_arrive_once_and_a_second_sending_adds_nothing(make_node, pacs) -> None:
    node = make_node(destinations={"pacs": pacs.port})
    node.start("analyse", "deliver")
    job = node.series()
    assert node.end(job).state is JobState.DELIVERED
    first = sorted(pacs.received)
    assert len(first) == 3
    node.operator.retry(job)
    wait_for(lambda: len(pacs.received) == 6)
    assert node.end(job).state is JobState.DELIVERED
    assert sorted(pacs.received) == sorted(first * 2), "the second delivery has other bytes or UIDs"
    assert len(node.runs()) == 1, "the second delivery caused a second analysis"


def test_a_child_killed_in_the_middle_of_a_job(make_node, pacs) -> None:
    node = make_node(destinations={"pacs": pacs.port})
    (node.orders / "hold").touch()
    node.start("analyse", "deliver")
    job = node.series()
    (child,) = wait_for(node.runs)
    assert child != node.workers["analyse"].pid, "it does not run in a child"
    os.kill(child, signal.SIGKILL)
    (node.orders / "hold").unlink()
    ended = node.end(job)
    assert ended.state is JobState.DELIVERED
    assert ended.attempts == 2
    assert len(pacs.uids) == len(pacs.received) == 3


def test_a_whole_worker_killed_in_the_middle_of_a_job_takes_its_child_along(make_node, pacs) -> None:
    node = make_node(destinations={"pacs": pacs.port})
    (node.orders / "hold").touch()
    node.start("analyse", "deliver")
    job = node.series()
    (child,) = wait_for(node.runs)
    os.kill(node.workers["analyse"].pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text())
    (node.orders / "hold").unlink()
    node.start("analyse")
    assert node.end(job).state is JobState.DELIVERED
    assert len(pacs.received) == 3


def test_a_job_that_kills_its_worker_each_time_ends_failed_and_the_next_is_served(make_node, pacs) -> None:
    node = make_node(destinations={"pacs": pacs.port}, max_attempts=2)
    (node.orders / "die").touch()
    node.start("analyse", "deliver")
    ended = node.end(node.series())
    assert ended.state is JobState.FAILED
    assert "2 times" in ended.reason
    assert len(node.runs()) == 2
    (node.orders / "die").unlink()
    assert node.end(node.series()).state is JobState.DELIVERED


def test_a_process_that_ran_out_of_memory_takes_no_further_job(make_node, pacs) -> None:
    node = make_node(destinations={"pacs": pacs.port})
    (node.orders / "starve").touch()
    node.start("analyse", "deliver")
    starved = node.series()
    (first,) = wait_for(node.runs)
    wait_for(lambda: node.jobs.get(starved).state is JobState.READY)
    (node.orders / "starve").unlink()
    other = node.series()
    assert [node.end(job).state for job in (starved, other)] == [JobState.DELIVERED] * 2
    assert (node.jobs.get(starved).attempts, node.jobs.get(other).attempts) == (2, 1)
    assert first not in node.runs()[1:]
    assert len(pacs.uids) == len(pacs.received) == 6


@pytest.mark.parametrize("worker_is_there", [False, True])
def test_redis_flushed_with_jobs_queued(make_node, pacs, worker_is_there) -> None:
    node = make_node(destinations={"pacs": pacs.port})
    if worker_is_there:
        (node.orders / "hold").touch()
        node.start("analyse", "deliver")
    else:
        node.start()
    queued = [node.series() for _ in range(4)]
    client = redis.Redis(unix_socket_path=str(node.settings.redis_socket))
    wait_for(lambda: client.llen("analyse") >= (3 if worker_is_there else 4))
    client.flushall()
    if worker_is_there:
        (node.orders / "hold").unlink()
    else:
        node.start("analyse", "deliver")
    for job in queued:
        assert node.end(job).state is JobState.DELIVERED
    assert len(pacs.uids) == 12


def test_redis_killed_and_started_again(make_node, pacs) -> None:
    node = make_node(destinations={"pacs": pacs.port})
    node.start("analyse", "deliver")
    os.kill(node.redis.pid, signal.SIGKILL)
    wait_for(lambda: node.redis.pid is None)
    jobs = [node.series() for _ in range(2)]
    node.redis.start()
    wait_for(node.redis.is_ready)
    for job in jobs:
        assert node.end(job).state is JobState.DELIVERED


@contextmanager
def silent_peer():
    """Accept connections and never answer."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]


def test_a_silent_destination_does_not_delay_another(make_node, pacs) -> None:
    with silent_peer() as port:
        node = make_node(destinations={"silent": port, "pacs": pacs.port})
        node.start("analyse", "deliver")
        for _ in range(6):
            node.series()
        # One attempt at the silent destination takes 5 s: six of them in a row would take 30 s.
        wait_for(lambda: len(pacs.uids) == 18, seconds=15)
        states = {d.destination: d for job in node.jobs.list() for d in job.deliveries if d.attempts}
        assert all(job.state is JobState.ANALYSED for job in node.jobs.list())
        wait_for(lambda: any(d.last_error for job in node.jobs.list() for d in job.deliveries if d.destination == "silent"))
        assert "silent" in states


def test_a_destination_that_was_down_gets_everything_later(make_node) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    node = make_node(destinations={"pacs": port})
    node.start("analyse", "deliver")
    job = node.series()
    wait_for(lambda: (d := node.jobs.get(job).deliveries) and d[0].attempts >= 2)
    assert node.jobs.get(job).state is JobState.ANALYSED
    assert "nothing listens on" in node.jobs.get(job).deliveries[0].last_error
    server = None
    try:
        entity = AE("PACS")
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax)
        server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)])
        assert node.end(job).state is JobState.DELIVERED
    finally:
        if server is not None:
            server.shutdown()
    assert len(node.runs()) == 1, "an outage caused a second analysis"


def test_twenty_studies_of_an_outage_come_in_the_order_of_their_age_and_no_other_destination_waits(make_node, pacs) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    node = make_node(destinations={"pacs": port, "archive": pacs.port})
    node.start("analyse", "deliver")
    jobs = [node.series() for _ in range(20)]
    wait_for(lambda: len(pacs.uids) == 60, 120)
    assert all(job.state is JobState.ANALYSED for job in node.jobs.list())
    tries = sum(d.attempts for job in node.jobs.list() for d in job.deliveries if d.destination == "pacs")
    late = Pacs(port)
    try:
        jobs.append(node.series())  # the newest delivery, which is attempted at once, is not made before the older ones
        for job in jobs:
            assert node.end(job).state is JobState.DELIVERED
        arrived = [uid for uid, _ in late.received]
    finally:
        late.close()
    expected = [row.sop_instance_uid for job in jobs for row in node.jobs.results(job)]
    assert arrived == expected, "not in the order of age, or twice"
    assert tries < 200, "several deliveries at a time tried the destination during the outage"
    assert len(node.runs()) == 21


def test_a_delivering_worker_killed_in_the_middle(make_node, pacs) -> None:
    node = make_node(destinations={"pacs": pacs.port})
    pacs.hold.clear()
    node.start("analyse", "deliver")
    job = node.series()
    wait_for(lambda: (d := node.jobs.get(job).deliveries) and d[0].attempts == 1)
    os.kill(node.workers["deliver"].pid, signal.SIGKILL)
    pacs.hold.set()
    node.start("deliver")
    assert node.end(job).state is JobState.DELIVERED
    assert len(pacs.uids) == 3


def test_out_of_resources_is_waited_for_and_a_refusal_is_not(make_node, pacs) -> None:
    node = make_node(destinations={"pacs": pacs.port})
    pacs.statuses = [0xA700, 0xA700]
    node.start("analyse", "deliver")
    ended = node.end(node.series())
    assert (ended.state, ended.deliveries[0].attempts) == (JobState.DELIVERED, 3)
    pacs.statuses = [0x0124, 0x0124, 0x0124]
    ended = node.end(node.series())
    assert ended.state is JobState.FAILED
    assert "not authorised" in ended.reason


def test_the_processes_are_what_they_should_be(make_node, pacs) -> None:
    node = make_node(destinations={"pacs": pacs.port})
    node.start("analyse", "deliver")
    node.end(node.series())
    children = set(_children(node.workers["analyse"].pid))
    assert children == set(node.runs()), "another process than the one forked child ran a job"
    assert _children(node.workers["deliver"].pid) == []
    loaded = subprocess.run(
        ["grep", "-c", "libtorch", f"/proc/{node.workers['analyse'].pid}/maps"], capture_output=True, text=True, check=False
    )
    assert loaded.stdout.strip() == "0", "the parent that forks has torch"


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
