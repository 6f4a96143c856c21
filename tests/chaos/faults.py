"""The faults. Each fault is injected and ended; the next event at a peer shows whether the node recovered."""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from processes import children

from alnnode.db.pauses import destination_target
from chaos.clock import HOUR

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from chaos.administration import Administration
    from chaos.peers import Network, Pacs, Senders
    from chaos.rig import Rig

STORED, REPORTED, DELIVERED = "an image stored", "a report at the archive", "an object at the PACS"


@dataclass
class World:
    """The processes and peers on which faults act."""

    rig: Rig
    pacs: Pacs
    network: Network
    senders: Senders
    random: random.Random
    administration: Administration

    def kill(self, word: str) -> None:
        """Kill one process of the node whose command line contains a word."""
        found = self.rig.find(word)
        if found:
            with suppress(ProcessLookupError):
                os.kill(self.random.choice(sorted(found)), signal.SIGKILL)

    def pause(self, word: str, seconds: float) -> None:
        """Stop a process for some seconds, like a machine that swaps."""
        for pid in self.rig.find(word):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(seconds)
                os.kill(pid, signal.SIGCONT)
                return

    def set_network(self, mode: str, seconds: float) -> None:
        """Set the mode of the network for some seconds."""
        self.network.mode = mode
        time.sleep(seconds)
        self.network.mode = "pass"

    def answer(self, status: int) -> None:
        """Let the PACS answer the next objects with a status."""
        self.pacs.statuses.extend([status] * self.random.randint(1, 4))

    def hang(self, seconds: float) -> None:
        """Let the PACS give no answer for some seconds."""
        self.pacs.going.clear()
        time.sleep(seconds)
        self.pacs.going.set()

    def starve(self, seconds: float) -> None:
        """Limit the analysing process to the memory that it has, for some seconds."""
        for pid in [child for worker in self.rig.find("workers analyse") for child in children(worker)]:
            with suppress(OSError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
                before = resource.prlimit(pid, resource.RLIMIT_AS)
                resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 20), before[1]))
                time.sleep(seconds)
                resource.prlimit(pid, resource.RLIMIT_AS, before)

    def cut_database(self, seconds: float) -> None:
        """Cut the link to a PostgreSQL on another host for some seconds."""
        assert self.rig.postgres.namespace is not None
        self.rig.postgres.namespace.cut(seconds)

    def disk_full(self, seconds: float) -> None:
        """Fill the disk of the node for some seconds."""
        self.rig.disk.fill()
        time.sleep(seconds)
        self.rig.disk.empty()


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        make: injects the fault and ends it.
        over: the event that shows recovery.
        weight: relative frequency in the schedule.
    """

    name: str
    make: Callable[[World], object]
    over: str
    weight: int = 1


def _cut_sender(world: World) -> None:
    world.senders.cut += 1


FAULTS = (
    Fault("kill -9 a listener", lambda w: w.kill("alnnode.receive"), STORED, 3),
    Fault("kill -9 `alnnode listen` (sweep)", lambda w: w.rig.kill_supervisor("listen"), STORED, 2),
    Fault("kill -9 the analysing process", lambda w: w.kill("workers analyse"), REPORTED, 2),
    Fault("kill -9 the delivering worker", lambda w: w.kill("workers deliver"), DELIVERED, 2),
    Fault("kill -9 the web service", lambda w: w.kill("alnnode.web"), STORED, 2),
    Fault("kill -9 `alnnode work`", lambda w: w.rig.kill_supervisor("work"), REPORTED, 1),
    Fault("the analysing process gets no more memory", lambda w: w.starve(2), REPORTED, 1),
    Fault("pause the delivering worker", lambda w: w.pause("workers deliver", 2), DELIVERED),
    Fault("pause a listener", lambda w: w.pause("alnnode.receive", 2), STORED),
    Fault("kill -9 Redis", lambda w: w.rig.kill_redis(w.random.uniform(0, 2)), REPORTED, 2),
    Fault("FLUSHALL", lambda w: w.rig.redis.flushall(), REPORTED, 2),
    Fault("PostgreSQL restarts at once", lambda w: w.rig.restart_postgres(signal.SIGQUIT), STORED, 2),
    Fault("kill -9 PostgreSQL", lambda w: w.rig.restart_postgres(signal.SIGKILL), STORED, 1),
    Fault("the PACS answers A700", lambda w: w.answer(0xA700), DELIVERED, 2),
    Fault("the PACS answers A900", lambda w: w.answer(0xA900), DELIVERED, 2),
    Fault("the PACS answers 0110", lambda w: w.answer(0x0110), DELIVERED, 2),
    Fault("the PACS hangs", lambda w: w.hang(5), DELIVERED),
    Fault("the PACS refuses connections", lambda w: w.set_network("refuse", 2), DELIVERED, 2),
    Fault("the network is cut in the middle of a PDU", lambda w: setattr(w.network, "mode", "cut"), DELIVERED, 3),
    Fault("the network stands still in the middle of a PDU", lambda w: w.set_network("stall", 5), DELIVERED),
    Fault("the network is slow", lambda w: w.set_network("delay", 2), DELIVERED),
    Fault("a sender's connection breaks in the middle of an object", _cut_sender, STORED, 3),
)
DISK = Fault("the disk is full", lambda w: w.disk_full(1.5), STORED, 2)
CLOCK = (
    Fault("the clock is set forward by an hour", lambda w: w.rig.clock.move(HOUR), REPORTED, 2),
    Fault("the clock is set back by an hour", lambda w: w.rig.clock.move(-HOUR), REPORTED, 2),
)
ADMINISTRATION = (
    Fault("`alnnode reload`", lambda w: w.rig.reload(), STORED),
    Fault("the analysis is drained and resumed", lambda w: w.administration.drain(2), REPORTED),
    Fault("a destination is paused and resumed", lambda w: w.administration.pause(destination_target("pacs"), 2), DELIVERED),
    Fault("`alnnode backfill` of two studies", lambda w: w.administration.backfill(), STORED),
)
REMOTE = Fault("the network to PostgreSQL is cut", lambda w: w.cut_database(3), STORED, 3)
EVERY = (*FAULTS, DISK, *CLOCK, *ADMINISTRATION, REMOTE)


def schedule(count: int, random: random.Random, *, disk: bool, clock: bool, remote: bool = False) -> list[Fault]:
    """Return ``count`` faults, each kind according to its weight, in an order that depends on the seed."""
    kinds = [*FAULTS, *([DISK] if disk else []), *(CLOCK if clock else []), *([REMOTE] if remote else [])]
    chosen: list[Fault] = []
    while len(chosen) < count:
        round_ = [fault for fault in kinds for _ in range(fault.weight)]
        random.shuffle(round_)
        for number, fault in enumerate(ADMINISTRATION):  # between the faults of every round, however short the run
            round_.insert(4 + 5 * number, fault)
        chosen += round_
    return chosen[:count]


def administration(count: int) -> list[Fault]:
    """Return ``count`` actions of an administrator, and no faults."""
    return [ADMINISTRATION[number % len(ADMINISTRATION)] for number in range(count)]
