"""What a worker process holds. It is made on the first task, in the process that runs tasks, never in the parent that forks.

Neither CUDA nor a database connection survives a fork, and loading weights in ``worker_process_init`` takes longer than Celery waits for
a new process.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from alnnode.analyse.jobs import Jobs
from alnnode.audit.trail import Trail
from alnnode.db import clock, engine
from alnnode.db.pauses import Pauses
from alnnode.deliver.commitments import Commitments
from alnnode.deliver.deliveries import Deliveries
from alnnode.deliver.destination_choice import connect
from alnnode.dicomweb.catalogue import Catalogue
from alnnode.process import heartbeat
from alnnode.spool.opening import open_spool
from alnnode.status.progress import WorkProgress
from alnnode.task_queue import ANALYSE, Producer
from workers.analyst import ModelAnalyst
from workers.lanes import Lanes

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy.engine import Engine

    from alnnode.clients.commitment_scu import CommitmentUser
    from alnnode.deliver.destination import Destination
    from alnnode.records import Analysis
    from alnnode.settings import Destination as DestinationSettings
    from alnnode.settings import Settings
    from alnnode.spool.spool import Spool
    from workers.analyst import Analyst

# The lease of a killed worker ends after this time; a running worker renews its lease four times in between (`workers.lease`).
ANALYSIS_LEASE = timedelta(seconds=20)
# When this lease ends because its worker cannot reach the database, another worker may send the same bytes, which does no harm.
DELIVERY_LEASE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables that workers use, on one engine."""

    jobs: Jobs
    deliveries: Deliveries
    commitments: Commitments
    progress: WorkProgress
    catalogue: Catalogue
    pauses: Pauses
    now: Callable[[], datetime]  # the time of the database

    @classmethod
    def open(cls, database: Engine) -> Tables:
        """Return the tables of a database."""
        return cls(
            Jobs(database),
            Deliveries(database),
            Commitments(database),
            WorkProgress(database),
            Catalogue(database),
            Pauses(database),
            partial(clock.now, database),
        )


class Runtime:
    """The settings, and the objects that are made from them on first use in this process.

    Attributes:
        suspect: an analysis ended abnormally in this process; it begins no other.
        shared: other analyses run in this process at the same time.
        stopping: the worker was told to stop: it ends the running deliveries and begins no other.
        away: destinations that could not be reached, with the time of the next attempt.
    """

    def __init__(
        self,
        settings: Settings,
        analyst: Analyst | None = None,
        lease: timedelta = ANALYSIS_LEASE,
        delivery_lease: timedelta = DELIVERY_LEASE,
    ) -> None:
        self.settings = settings
        self.analyst = analyst or ModelAnalyst(settings.analysis, self._observe)
        self.lease = lease
        self.delivery_lease = delivery_lease
        self.suspect = self.shared = False
        self.stopping = threading.Event()
        self.lanes = Lanes()
        self.away: dict[str, datetime] = {}
        self._lock = threading.Lock()
        self._tables: Tables | None = None
        self._producer: Producer | None = None
        self._trail: Trail | None = None
        self._spool: Spool | None = None

    @property
    def tables(self) -> Tables:
        """The tables, on this process's own connections."""
        with self._lock:
            if self._tables is None:
                database = engine.create(self.settings.database_url)
                self._tables = Tables.open(database)
            return self._tables

    @property
    def producer(self) -> Producer:
        """The task queue, on this process's own connections."""
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self.settings)
            return self._producer

    @property
    def trail(self) -> Trail:
        """The audit trail, written by a thread of this process."""
        with self._lock:
            if self._trail is None:
                self._trail = Trail(self.settings)
            return self._trail

    @property
    def spool(self) -> Spool:
        """The files."""
        with self._lock:
            if self._spool is None:
                self._spool = open_spool(self.settings)
            return self._spool

    def files_of(self, series_uid: str) -> dict[str, Path]:
        """Return the files of a received series by SOP Instance UID."""
        found = self.tables.catalogue.instances(series=[series_uid])
        return {one.sop_instance_uid: self.spool.path(one.path) for one in found}

    def destination(self, name: str) -> Destination | None:
        """Return the destination of that name; None when the settings do not name it."""
        found = self.destination_settings(name)
        return None if found is None else connect(found, self.settings.node.ae_title)

    def destination_settings(self, name: str) -> DestinationSettings | None:
        """Return the settings of the destination of that name; None when there are none."""
        return next((found for found in self.settings.destinations if found.name == name), None)

    def commitment_user(self, name: str) -> CommitmentUser | None:
        """Return the Storage Commitment SCU for a destination; None when the settings do not name it or do not want commitment."""
        from alnnode.clients.association import peer_of  # noqa: PLC0415
        from alnnode.clients.commitment_scu import CommitmentUser  # noqa: PLC0415 - most nodes do not use it

        found = self.destination_settings(name)
        if found is None or found.kind == "stow" or found.commitment == "off":
            return None
        return CommitmentUser(peer_of(found), self.settings.node.ae_title)

    def _observe(self, analysis: Analysis) -> None:
        """Record the probabilities of the nodes, and the memory that the device used, for monitoring."""
        from alnnode.model.ensemble import device_memory  # noqa: PLC0415 - only the process that analyses loads torch

        probabilities = [finding.prediction.probability for finding in analysis.findings]
        self.tables.progress.count_probabilities(analysis.model.digest, probabilities)
        with suppress(OSError):  # a full disk does not end the analysis
            heartbeat.write_values(self.settings.node.data_dir, ANALYSE, device_memory())
