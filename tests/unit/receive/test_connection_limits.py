"""The limits of connections: networks, number at once, and rate."""

from ipaddress import ip_network

import pytest
import structlog

from alnnode.receive import connection_limits
from alnnode.receive.connection_limits import ConnectionLimiter, ConnectionLimits

NETWORKS = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(connection_limits, "time", clock)
    return clock


@pytest.fixture
def make(clock):
    return lambda connections=100, peer=100, rate=100: ConnectionLimiter(NETWORKS, ConnectionLimits(connections, peer, rate))


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("10.1.2.3", True), ("11.1.2.3", False), ("::ffff:10.1.2.3", True), ("::ffff:11.1.2.3", False), ("fd00::1%eth0", True)],
)
def test_only_the_networks_of_the_settings(make, address, allowed) -> None:
    assert make().admit(address) is allowed


def test_one_peer_cannot_take_all_connections(make) -> None:
    limiter = make(connections=4, peer=2)
    assert [limiter.admit("10.0.0.1") for _ in range(3)] == [True, True, False]
    assert [limiter.admit("10.0.0.2") for _ in range(2)] == [True, True]
    assert not limiter.admit("10.0.0.3"), "four connections are open"
    limiter.release("10.0.0.1")
    assert limiter.admit("10.0.0.3")
    assert not limiter.admit("10.0.0.1")


def test_the_rate_admits_a_burst_and_no_more(make, clock) -> None:
    limiter = make(rate=2)
    taken = 0
    for _ in range(100):
        if limiter.admit("10.0.0.1"):
            taken += 1
            limiter.release("10.0.0.1")
    assert taken == 20
    assert limiter.admit("10.0.0.2")
    clock.now += 3
    assert [limiter.admit("10.0.0.1") for _ in range(8)] == [True] * 6 + [False] * 2


def test_the_log_names_a_peer_once_a_minute(make, clock) -> None:
    limiter = make()
    with structlog.testing.capture_logs() as lines:
        for _ in range(50):
            limiter.admit("192.0.2.1")
        clock.now += 61
        limiter.admit("192.0.2.1")
    assert [line["reason"] for line in lines] == ["not in [listener] addresses"] * 2


def test_peers_without_connections_are_forgotten(make) -> None:
    limiter = make(connections=3)
    assert limiter.admit("10.9.9.9")
    for number in range(3 * connection_limits.REMEMBERED):
        limiter.admit(f"192.0.{number % 256}.{number // 256}")
    assert len(limiter._peers) <= connection_limits.REMEMBERED + 1
    limiter.release("10.9.9.9")
