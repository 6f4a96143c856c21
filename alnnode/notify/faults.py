"""Observe the faults that last: a destination that accepts nothing, a disk that is nearly full, a worker that is missing, other probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from alnnode.counted import counted
from alnnode.db.tables import Delivery, DeliveryState
from alnnode.notify.drift import BEGINS, ENDS, DriftMonitor
from alnnode.process import heartbeat
from alnnode.spool.spool import Spool
from alnnode.task_queue import ANALYSE, DELIVER

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Connection

    from alnnode.settings import Settings

MOST_ERROR = 200  # characters of an error in a notice
_OPEN = (DeliveryState.PENDING, DeliveryState.COMMITTING)
TASKS = {ANALYSE: "analyses series", DELIVER: "delivers results"}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that is present now.

    Attributes:
        name: of the fault; the key of its condition.
        kind: of the notice.
        text: what happened and what to do, without patient data.
        at_once: whether the notice does not wait for [notify] after.
    """

    name: str
    kind: str
    text: str
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The end of a fault: kind and text of the notice."""

    kind: str
    text: str


class Faults:
    """Reads the database and the data directory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._free_mb = Spool(settings.node.data_dir / "spool").free_mb
        self._drift = DriftMonitor()

    def present(self, connection: Connection) -> tuple[Fault, ...]:
        """Return the faults that are present now."""
        return (*self._destinations(connection), *self._disk(), *self._workers(), *self._drifts(connection))

    def end(self, connection: Connection, name: str, since: datetime) -> End | None:
        """Return how a fault ended that began at ``since``; None while it has not ended."""
        sort, _, subject = name.partition(" ")
        if sort == "destination" and self._sent_since(connection, subject, since):
            return End("destination_works", f"Destination {subject} accepts results again.")
        if sort == "disk" and self._free_mb() >= max(
            self._settings.retention.min_free_mb, self._settings.retention.clean_below_mb
        ):
            return End("disk_free", f"The disk has space again: {self._free_mb()} MiB are free in data_dir.")
        if sort == "worker" and self._is_heard(subject):
            return End("worker_back", f"A worker {TASKS.get(subject, 'works')} again.")
        if sort == "drift":
            return self._end_of_drift(connection, subject)
        return None

    def is_gone(self, name: str) -> bool:
        """Return whether the settings no longer name the destination of a fault."""
        sort, _, subject = name.partition(" ")
        return sort == "destination" and subject not in {one.name for one in self._settings.destinations}

    def _destinations(self, connection: Connection) -> list[Fault]:
        failing = (Delivery.state.in_(_OPEN), Delivery.last_error.is_not(None))
        counts = connection.execute(
            select(Delivery.destination, func.count())
            .where(*failing)
            .group_by(Delivery.destination)
            .order_by(Delivery.destination)
        )
        found = []
        for name, count in counts.all():
            newest = select(Delivery.last_error).where(*failing, Delivery.destination == name)
            error = connection.execute(newest.order_by(Delivery.next_attempt_at.desc()).limit(1)).scalar_one_or_none() or ""
            text = f"Destination {name} accepts no results; {counted(count, 'delivery waits and is', 'deliveries wait and are')} retried. Last error: {error[:MOST_ERROR]}"
            found.append(Fault(f"destination {name}", "destination_fails", text))
        return found

    @staticmethod
    def _sent_since(connection: Connection, destination: str, since: datetime) -> bool:
        sent = select(Delivery.delivery_id).where(Delivery.destination == destination, Delivery.sent_at > since)
        return connection.execute(sent.limit(1)).first() is not None

    def _disk(self) -> list[Fault]:
        free, least = self._free_mb(), self._settings.retention.min_free_mb
        if free >= least:
            return []
        text = (
            f"The disk is full: {free} MiB are free in data_dir, and the node refuses images (0xA700) below {least} MiB. "
            "Free space, or enlarge the disk."
        )
        return [Fault("disk", "disk_full", text, at_once=True)]

    def _drifts(self, connection: Connection) -> list[Fault]:
        drift = self._drift.read(connection)
        if drift is None or drift.index < BEGINS:
            return []
        text = (
            f"The probabilities of the nodes have another distribution than before ({drift.text}). The images or the patients have changed: "
            "check scanners, protocols and routes, and a sample of the reports."
        )
        return [Fault(f"drift {drift.bundle[:12]}", "drift", text, at_once=True)]

    def _end_of_drift(self, connection: Connection, bundle: str) -> End | None:
        drift = self._drift.read(connection)
        if drift is None or drift.bundle[:12] != bundle:
            return End("drift_ended", "Another model is in use: the drift of the earlier one has ended.")
        if drift.index < ENDS:
            return End("drift_ended", f"The probabilities of the nodes have their first distribution again ({drift.text}).")
        return None

    def _silence(self, queue: str) -> float | None:
        """Return the seconds since the last heartbeat of the workers of a queue; None when none was heard for a day."""
        ages = heartbeat.ages(self._settings.node.data_dir).items()
        return min((age for name, age in ages if name.partition("@")[0] == queue), default=None)

    def _is_heard(self, queue: str) -> bool:
        age = self._silence(queue)
        return age is not None and age < heartbeat.LATE

    def _workers(self) -> list[Fault]:
        silences = {queue: self._silence(queue) for queue in (ANALYSE, DELIVER)}
        return [
            Fault(
                f"worker {queue}",
                "worker_missing",
                f"No worker {TASKS[queue]}: the last one was heard {age:.0f} s ago. Check that `alnnode work` runs, and read its log.",
            )
            for queue, age in silences.items()
            if age is not None and age >= heartbeat.LATE
        ]
