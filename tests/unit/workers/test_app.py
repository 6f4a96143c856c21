"""What the parent process of a worker does beside its tasks."""

import os
import time
from types import SimpleNamespace

from celery import signals

from alnnode.process import heartbeat
from alnnode.settings import Node, Settings
from alnnode.spool import copies
from workers import app


def test_a_worker_without_tasks_deletes_the_copies_that_nobody_uses(tmp_path) -> None:
    repeated = []
    consumer = SimpleNamespace(timer=SimpleNamespace(call_repeatedly=lambda seconds, work: repeated.append((seconds, work))))
    app._end_copies(consumer, Settings(node=Node(data_dir=tmp_path)))
    ((seconds, work),) = repeated
    unused, used = (tmp_path / "spool" / "copies" / "boot" / name for name in ("unused.1.dcm", "used.1.dcm"))
    used.parent.mkdir(parents=True)
    for path, age in ((unused, copies.UNUSED + 1), (used, 0)):
        path.touch()
        os.utime(path, (time.time() - age, 0))
    work()
    assert (unused.exists(), used.exists(), seconds) == (False, True, copies.INTERVAL)


def beating(folder, queue: str, host: str, monkeypatch):
    """Start the heartbeat of a worker of a host; return the function that stops it as Celery does."""
    monkeypatch.setattr(heartbeat.socket, "gethostname", lambda: host)
    worker, repeated = object(), []
    timer = SimpleNamespace(call_repeatedly=lambda _, work: repeated.append(work))
    app._beat(SimpleNamespace(timer=timer), Settings(node=Node(data_dir=folder)), queue)

    def stop() -> None:
        monkeypatch.setattr(heartbeat.socket, "gethostname", lambda: host)
        repeated[0]()
        stopping = signals.worker_shutdown.receivers[-1:]
        for _, receiver in stopping:
            receiver(signal=signals.worker_shutdown, sender=worker)
        signals.worker_shutdown.receivers = signals.worker_shutdown.receivers[:-1]

    return stop


def age(folder, worker: str, seconds: float) -> None:
    for path in folder.glob(f"heartbeats*/{worker}"):
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_worker_that_was_stopped_is_not_missed_while_another_one_runs(tmp_path, monkeypatch) -> None:
    beating(tmp_path, "analyse", "stays", monkeypatch)
    beating(tmp_path, "analyse", "goes", monkeypatch)()
    age(tmp_path, "analyse@goes", 100)
    assert list(heartbeat.ages(tmp_path)) == ["analyse@stays"]
    age(tmp_path, "analyse@stays", 200)
    ages = heartbeat.ages(tmp_path)
    assert sorted(ages) == ["analyse@goes", "analyse@stays"], "nobody analyses, which an administrator must learn"
    assert min(ages.values()) > heartbeat.LATE


def test_the_last_worker_of_a_queue_is_missed_until_another_one_starts(tmp_path, monkeypatch) -> None:
    beating(tmp_path, "deliver", "stays", monkeypatch)
    beating(tmp_path, "analyse", "first", monkeypatch)()
    age(tmp_path, "analyse@first", 100)
    assert heartbeat.ages(tmp_path)["analyse@first"] > heartbeat.LATE
    beating(tmp_path, "analyse", "second", monkeypatch)
    assert sorted(heartbeat.ages(tmp_path)) == ["analyse@second", "deliver@stays"]


def test_the_end_of_a_worker_leaves_the_heartbeat_of_its_successor_on_the_host(tmp_path, monkeypatch) -> None:
    heartbeat.beat(tmp_path, "analyse")
    beaten = heartbeat.beat(tmp_path, "analyse")
    (file,) = (tmp_path / "heartbeats").iterdir()
    os.utime(file, ns=(beaten + 1, beaten + 1))  # the successor's
    heartbeat.end(tmp_path, "analyse", beaten)
    assert file.exists()
