"""The faults of many hosts; each ends by itself, and the node must recover without help."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from processes import children, command_line, descendants

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from hosts.site import Site


def cut(site: Site, hosts: list[str], longest: float) -> None:
    """Cut one host off for a time, and bring it back."""
    host = site.random.choice(hosts)
    site.network.cut(host)
    time.sleep(site.random.uniform(longest / 3, longest))
    site.network.join(host)


def kill(site: Site, hosts: Sequence[str]) -> None:
    """Kill the main process of one host, and with it its children."""
    site.services[site.random.choice(hosts)].kill()


def kill_child(site: Site, host: str) -> None:
    """Kill the process that analyses, in the middle of whatever it does."""
    process = site.services[host].process
    for pid in children(process.pid) if process is not None else []:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_listener(site: Site, host: str) -> None:
    """Kill the listening process of a host; its supervisor starts another."""
    process = site.services[host].process
    for pid in descendants(process.pid) if process is not None else []:
        if "alnnode.receive" in command_line(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def cut_leader(site: Site, longest: float) -> None:
    """Cut the host off whose sweep leads, for longer than its lease."""
    host = site.leader()
    if host is not None:
        site.network.cut(host)
        time.sleep(max(longest, 12.0))
        site.network.join(host)


def kill_leader(site: Site) -> None:
    """Kill the supervisor whose sweep leads."""
    host = site.leader()
    if host is not None:
        site.services[host].kill()


def cut_from_replaced_redis(site: Site, host: str) -> None:
    """Replace Redis while a worker is cut off: the worker waits for an answer of a server that is gone."""
    site.network.cut(host)
    time.sleep(1.5)
    site.redis.replace()
    time.sleep(2.5)
    site.network.join(host)


WORKERS = ("work1", "work2")


def kinds(site: Site, longest: float) -> dict[str, tuple[Callable[[], object], int]]:
    """Return the kinds of faults, with how to make one and its weight.

    Args:
        site: on which they act.
        longest: seconds that a host is cut off at most.
    """
    one: random.Random = site.random
    listeners = [*site.plan.listeners, *site.plan.secure]
    node = [host for host in site.services if not host.startswith(("listen", "work"))]
    return {
        "a listener's host is cut off": (lambda: cut(site, listeners, longest), 2),
        "a worker's host is cut off": (lambda: cut(site, [*WORKERS, *node], longest), 3),
        "the database's host is cut off": (lambda: cut(site, ["db"], longest / 2), 1),
        "kill -9 the analysing process": (lambda: kill_child(site, one.choice(WORKERS)), 2),
        "kill -9 a worker": (lambda: kill(site, WORKERS), 2),
        "kill -9 a listening process": (lambda: kill_listener(site, one.choice(listeners)), 2),
        "kill -9 all of a listener's host": (lambda: kill(site, listeners), 1),
        "kill -9 the leading sweep": (lambda: kill_leader(site), 1),
        "the host of the leading sweep is cut off": (lambda: cut_leader(site, longest), 1),
        "the database restarts at once": (lambda: site.postgres.restart(signal.SIGQUIT), 2),
        "kill -9 the database": (lambda: site.postgres.restart(signal.SIGKILL), 1),
        "an empty Redis takes the place of Redis": (site.redis.replace, 2),
        "Redis is replaced while a worker is cut off": (lambda: cut_from_replaced_redis(site, one.choice(WORKERS)), 1),
        "kill -9 the load balancer": (site.balancer.service.kill, 2),
        **({"kill -9 the object storage": (site.store.service.kill, 2)} if site.store is not None else {}),
    }


def schedule(site: Site, count: int, longest: float, only: Sequence[str] = ()) -> list[tuple[str, Callable[[], object]]]:
    """Return so many faults, each kind according to its weight, in an order that depends on the seed.

    Args:
        site: on which they act.
        count: how many.
        longest: seconds that a host is cut off at most.
        only: the kinds; empty: all.
    """
    all_kinds = {name: kind for name, kind in kinds(site, longest).items() if not only or name in only}
    chosen: list[tuple[str, Callable[[], object]]] = []
    while len(chosen) < count:
        round_ = [(name, make) for name, (make, weight) in all_kinds.items() for _ in range(weight)]
        site.random.shuffle(round_)
        chosen += round_
    return chosen[:count]
