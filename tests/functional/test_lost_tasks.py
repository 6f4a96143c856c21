"""Messages on a real Redis that are lost or wait long: lost messages are enqueued again soon, and no message is enqueued twice."""

import base64
import json
import time
from collections import Counter
from datetime import timedelta
from itertools import count

import pytest
from celery import Celery
from functional.test_jobs import BOTH, REPORT, instance
from listening import wait_for
from stages import TERMS, Stages

from alnnode import task_queue as queue_module
from alnnode.audit.trail import Trail
from alnnode.db import engine as engines
from alnnode.db import requeue, schema
from alnnode.node.sweep import Sweep
from alnnode.settings import Broker, Completion, Node, Settings
from alnnode.spool.spool import Spool
from alnnode.task_queue import ANALYSE, DELIVER, Producer, celery_options

redis = pytest.importorskip("redis")
pytestmark = pytest.mark.redis
WAIT = 1.0  # seconds; the node waits 15 s and caches the ids on a queue for 5 s
SOON = 25.0  # seconds, on a busy machine


class Bench:
    """Jobs and deliveries, a sweep and a Redis without workers."""

    def __init__(self, folder, socket) -> None:
        self.settings = Settings(
            node=Node(data_dir=folder),
            broker=Broker(url=f"redis+socket://{socket}"),
            completion=Completion(quiet=1),
            retention={"min_free_mb": 0, "clean_below_mb": 0},
        )
        schema.migrate(self.settings.database_url)
        engine = engines.create(self.settings.database_url)
        self.stages, self.producer = Stages(engine), Producer(self.settings)
        self.redis = redis.Redis(unix_socket_path=str(socket))
        self.sweep = Sweep(self.settings, engine, Spool(folder / "spool"), self.producer, Trail(self.settings))
        self._numbers = count()

    def receive(self, number: int) -> None:
        self.stages.received.record_instances([instance(0, series=f"1.3.{next(self._numbers)}") for _ in range(number)])

    def analysed(self, destinations=("pacs",)) -> None:
        self.receive(1)
        self.sweep.once()
        (job,) = [one.job_id for one in self.stages.jobs.list() if one.state == "READY"]
        self.stages.jobs.analysed(self.stages.jobs.claim(job, TERMS), REPORT, dict.fromkeys(destinations, BOTH))

    def length(self, name: str) -> int:
        self.sweep.once()
        return self.redis.llen(name)

    def ids(self, name: str) -> Counter:
        bodies = (json.loads(message)["body"] for message in self.redis.lrange(name, 0, -1))
        return Counter(json.loads(base64.b64decode(body))[0][0] for body in bodies)

    def sweep_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.sweep.once()
            time.sleep(0.05)  # as often as the sweep of a node under test


@pytest.fixture
def bench(tmp_path, redis_socket, monkeypatch):
    monkeypatch.setattr(requeue, "REQUEUE_AFTER", timedelta(seconds=WAIT))
    monkeypatch.setattr(queue_module, "QUEUE_CACHE_SECONDS", WAIT / 3)
    made = Bench(tmp_path, redis_socket)
    yield made
    made.producer.close()


def test_a_task_is_looked_for_only_where_it_must_have_been_seen() -> None:
    assert timedelta(seconds=queue_module.QUEUE_CACHE_SECONDS) < requeue.REQUEUE_AFTER, (
        "ids that were read before the enqueueing would be used"
    )


def test_what_the_broker_loses_again_and_again_is_there_again_as_soon_each_time(bench) -> None:
    bench.analysed()
    bench.receive(1)
    wait_for(lambda: bench.length(DELIVER) == 1, SOON)
    for _ in range(6):  # a wait that doubles would exceed the limit
        bench.redis.flushall()
        wait_for(lambda: bench.length(ANALYSE) == 1 and bench.length(DELIVER) == 1, SOON)


def test_a_cleaning_that_fails_does_not_end_every_round(bench, monkeypatch) -> None:
    def fail():
        raise OSError(5, "the storage does not give an object")

    monkeypatch.setattr(bench.sweep, "clean", fail)
    bench.receive(1)
    with pytest.raises(OSError, match="does not give"):
        bench.sweep.once()
    wait_for(lambda: bench.length(ANALYSE) == 1, SOON)


def test_a_long_queue_is_not_doubled_and_what_is_lost_of_it_comes_back(bench) -> None:
    bench.receive(400)
    wait_for(lambda: bench.length(ANALYSE) >= 400, 60)
    bench.sweep_for(4 * WAIT)
    whole = bench.ids(ANALYSE)
    assert (len(whole), max(whole.values())) == (400, 1)
    bench.redis.ltrim(ANALYSE, 0, 99)
    wait_for(lambda: bench.length(ANALYSE) >= 400, SOON)
    bench.sweep_for(2 * WAIT)
    assert bench.ids(ANALYSE) == whole


def test_however_much_waits_for_a_destination_one_message_waits_with_it(bench) -> None:
    for _ in range(5):
        bench.analysed(("pacs", "archive"))
    bench.sweep_for(4 * WAIT)
    bench.redis.delete(DELIVER)
    wait_for(lambda: bench.length(DELIVER) == 2, SOON)
    bench.sweep_for(4 * WAIT)
    places = Counter(bench.stages.deliveries.destination_of(one) for one in bench.ids(DELIVER).elements())
    assert places == {"pacs": 1, "archive": 1}


def test_a_message_holds_one_id_and_strange_messages_none(bench) -> None:
    bench.producer.enqueue_analysis("job-1")
    bench.producer.enqueue_delivery("delivery-1")
    bench.redis.rpush(ANALYSE, b"no JSON", b"[]", b'{"body": "bm9uZQ=="}', b'{"body": 7}', b"{}")
    assert bench.producer.queued(ANALYSE) == {"job-1"}
    assert bench.producer.queued(DELIVER) == {"delivery-1"}
    bench.redis.ltrim(ANALYSE, 0, 0)
    reader = Celery("reader", set_as_current=False)
    reader.conf.update(celery_options(bench.settings))
    found = {}
    with reader.connection_for_read() as connection:
        for queue in (ANALYSE, DELIVER):
            message = connection.SimpleQueue(queue).get(timeout=5)
            found[message.headers["task"]] = message.payload[:2]
    assert found == {"alnnode.analyse": [["job-1"], {}], "alnnode.deliver": [["delivery-1"], {}]}
