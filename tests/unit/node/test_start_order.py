"""The start of a node: the listening processes are ready first, then the workers start, and their first start is told."""

import threading
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from alnnode.errors import ServiceError
from alnnode.node.process_set import ProcessSet


def process(name: str, order: list[str], *, beside: bool, needed: bool = True) -> SimpleNamespace:
    """Return a process that becomes ready at the second look, and writes what happens to it."""
    one = SimpleNamespace(name=name, beside=beside, needed=needed, pid=None, code=None, looks=0)

    def start() -> None:
        order.append(f"start {name}")

    def is_ready() -> bool:
        one.looks += 1
        if one.looks == 2 and one.code is None:
            order.append(f"ready {name}")
        return one.looks >= 2 and one.code is None

    one.start = one.start_or_retry = start
    one.is_ready, one.exit_code = is_ready, lambda: one.code
    one.restart_if_died = one.terminate = lambda: None
    one.wait_or_kill = lambda _: None
    return one


@pytest.fixture
def node() -> SimpleNamespace:
    order: list[str] = []
    made = [
        process("listener-1", order, beside=True),
        process("web", order, beside=True),
        process("worker-analyse", order, beside=False, needed=False),
        process("worker-deliver", order, beside=False),
    ]
    starting: list[list[str]] = []
    return SimpleNamespace(order=order, processes=made, starting=starting, set=ProcessSet(made, starting.append))


def test_the_node_is_ready_when_it_receives_and_its_workers_start_then(node) -> None:
    assert node.set.start(threading.Event()) == ["listener-1", "web"]
    assert node.order == ["start listener-1", "start web", "ready listener-1", "ready web"]
    node.set.start_workers()
    assert node.order[4:] == ["start worker-analyse", "start worker-deliver"]
    assert node.starting == [["worker-analyse", "worker-deliver"]]
    with capture_logs() as events:
        node.set.supervise()
        assert events == [], "neither is ready at the first look"
        node.set.supervise()
        node.set.supervise()
    assert [(event["event"], event["part"]) for event in events] == [
        ("part_ready", "worker-analyse"),
        ("part_ready", "worker-deliver"),
    ]
    assert node.starting[1:] == [["worker-deliver"], []]


def test_a_worker_that_does_not_start_is_told_once_and_starts_no_longer(node) -> None:
    node.set.start(threading.Event())
    node.set.start_workers()
    node.processes[2].code = 1
    with capture_logs() as events:
        for _ in range(3):
            node.set.supervise()
    assert [event["event"] for event in events] == ["part_not_started", "part_ready"]
    assert node.starting[-1] == []


def test_a_listening_process_that_ends_at_its_start_still_ends_the_start_of_the_node(node) -> None:
    node.processes[1].code = 1
    with pytest.raises(ServiceError, match="the process web ended at start"):
        node.set.start(threading.Event())
    assert "start worker-analyse" not in node.order


def test_workers_alone_are_ready_when_they_work(node) -> None:
    alone = ProcessSet(node.processes[2:], node.starting.append)
    assert alone.start(threading.Event()) == ["worker-analyse", "worker-deliver"]
    alone.start_workers()
    assert node.order == ["start worker-analyse", "start worker-deliver", "ready worker-analyse", "ready worker-deliver"]
    assert node.starting == []
