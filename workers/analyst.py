"""What a worker process holds: made on the first task, in the process that runs it, never in the parent that forks.

CUDA does not survive a fork, nor does a database connection; and loading weights in ``worker_process_init`` takes longer than
Celery waits for a new process.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from alnnode.analyse.jobs import Jobs
from alnnode.audit.trail import Trail
from alnnode.db import engine
from alnnode.deliver.commitments import Commitments
from alnnode.deliver.destination import connect
from alnnode.dicomweb.catalogue import Catalogue
from alnnode.model import bundle as bundles
from alnnode.process import heartbeat
from alnnode.spool.spool import Spool
from alnnode.status.progress import Figures
from alnnode.task_queue import ANALYSE, Producer
from workers.lanes import Lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from alnnode.clients.commitment_scu import CommitmentUser
    from alnnode.deliver.destination import Destination
    from alnnode.model.bundle import Bundle
    from alnnode.pipeline import Models
    from alnnode.records import Analysis, ReportContext, ResultObject
    from alnnode.settings import Analysis as AnalysisSettings
    from alnnode.settings import Destination as DestinationSettings
    from alnnode.settings import Settings

# A worker that was killed gives its job back after this long; one that lives renews it four times in between.
ANALYSIS_LEASE = timedelta(seconds=20)
# When this ends, another worker may send the same bytes again, which does no harm; short, so that a killed worker costs little.
DELIVERY_LEASE = timedelta(seconds=60)


class Analyst(Protocol):
    """The heavy part: files in, result objects out."""

    @property
    def digest(self) -> str:
        """sha256 (hex) of the bundle."""

    @property
    def arithmetic(self) -> str:
        """What decides the last bits of a result beside input and weights: the device, in words."""

    def analyse(
        self, paths: Sequence[Path], context: ReportContext, progress: Callable[[str], None], marks: Sequence[Path] = ()
    ) -> tuple[list[ResultObject], str | None]:
        """Return the result objects, and the reason when they only say that the series cannot be analysed.

        Raises:
            NotAnalysable: not even a header could be read: there is nothing to report on.
            ReportError: the result objects could not be built.
        """


class ModelAnalyst:
    """The bundle's networks, loaded when first asked for."""

    def __init__(self, settings: AnalysisSettings, observe: Callable[[Analysis], None]) -> None:
        self._settings, self._observe = settings, observe
        self._bundle: Bundle | None = None  # until its networks are loaded: it holds all bytes of its files
        self._digest: str | None = None
        self._loaded: Models | None = None

    @property
    def digest(self) -> str:
        """sha256 (hex) of the bundle, known without its networks: what fails when they are loaded is a job's own trouble."""
        if self._digest is None:
            self._digest = self._opened().digest
        return self._digest

    @property
    def arithmetic(self) -> str:
        """See `Analyst.arithmetic`; loads the networks."""
        from alnnode.model.ensemble import arithmetic  # noqa: PLC0415 - only the process that analyses loads torch

        return arithmetic(self._load().ensemble.device)

    def analyse(
        self, paths: Sequence[Path], context: ReportContext, progress: Callable[[str], None], marks: Sequence[Path] = ()
    ) -> tuple[list[ResultObject], str | None]:
        """See `Analyst.analyse`."""
        from alnnode import pipeline, report  # noqa: PLC0415 - only the process that analyses loads torch
        from alnnode.locate.marks.reading import read_marks  # noqa: PLC0415

        series = pipeline.SeriesInput(paths, [read_marks(path) for path in marks], context.prior)
        analysis = pipeline.analyse(series, self._load(), self._settings, progress)
        self._observe(analysis)
        progress("report")
        return report.build(analysis, context), analysis.not_analysed

    def _opened(self) -> Bundle:
        if self._bundle is None:
            self._bundle = bundles.load(bundles.resolve(self._settings.bundle))
        return self._bundle

    def _load(self) -> Models:
        if self._loaded is None:
            import torch  # noqa: PLC0415

            from alnnode.pipeline import Models  # noqa: PLC0415

            if self._settings.threads:
                torch.set_num_threads(self._settings.threads)
            bundle = self._opened()
            self._loaded = Models.load(bundle, self._settings.device)
            self._bundle, self._digest = None, bundle.digest
        return self._loaded


class Runtime:
    """Settings, and everything made from them on first use in this process."""

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
        self.suspect = False  # an analysis ended in this process as it should not: no other one is begun here
        self.stopping = threading.Event()  # what is begun is ended, and nothing more is begun
        self.lanes = Lanes()
        self.away: dict[str, datetime] = {}  # destinations that could not be reached, with the time of the next try
        self._lock = threading.Lock()
        self._opened: tuple[Jobs, Commitments, Figures, Catalogue] | None = None
        self._producer: Producer | None = None
        self._trail: Trail | None = None

    @property
    def jobs(self) -> Jobs:
        """The job tables, on this process's own connections."""
        return self._stores()[0]

    @property
    def commitments(self) -> Commitments:
        """What destinations commit, on the same connections."""
        return self._stores()[1]

    @property
    def figures(self) -> Figures:
        """What is told of the work, on the same connections."""
        return self._stores()[2]

    def held(self, series_uid: str) -> dict[str, Path]:
        """Return the files that the node holds of a series, by SOP Instance UID."""
        found = self._stores()[3].instances(series=[series_uid])
        return {one.sop_instance_uid: self.spool.path(one.path) for one in found}

    def _stores(self) -> tuple[Jobs, Commitments, Figures, Catalogue]:
        with self._lock:
            if self._opened is None:
                database = engine.create(self.settings.database_url, self.settings.database.pool_size)
                self._opened = Jobs(database), Commitments(database), Figures(database), Catalogue(database)
            return self._opened

    def _observe(self, analysis: Analysis) -> None:
        """Tell monitoring which probabilities the nodes got, and how much memory the device gave for it."""
        from alnnode.model.ensemble import device_memory  # noqa: PLC0415 - only the process that analyses loads torch

        self.figures.probabilities(analysis.model.digest, [finding.prediction.probability for finding in analysis.findings])
        with suppress(OSError):  # a full disk is no reason to fail
            heartbeat.note(self.settings.node.data_dir, ANALYSE, device_memory())

    @property
    def producer(self) -> Producer:
        """The queues, on this process's own connections."""
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self.settings)
            return self._producer

    @property
    def trail(self) -> Trail:
        """The audit trail, written by this process's own thread."""
        with self._lock:
            if self._trail is None:
                self._trail = Trail(self.settings)
            return self._trail

    @property
    def spool(self) -> Spool:
        """The bytes."""
        return Spool(self.settings.node.data_dir / "spool")

    def destination(self, name: str) -> Destination | None:
        """Return the destination of that name; None when the settings no longer have it."""
        found = self.destination_settings(name)
        return None if found is None else connect(found, self.settings.node.ae_title)

    def destination_settings(self, name: str) -> DestinationSettings | None:
        """Return what the settings say of it."""
        return next((found for found in self.settings.destinations if found.name == name), None)

    def commitment_user(self, name: str) -> CommitmentUser | None:
        """Return what asks a destination to commit; None when the settings no longer have it, or no longer want that."""
        from alnnode.clients.commitment_scu import CommitmentUser  # noqa: PLC0415 - most nodes do not ask
        from alnnode.deliver.cstore import peer_of  # noqa: PLC0415

        found = self.destination_settings(name)
        if found is None or found.commitment == "off":
            return None
        return CommitmentUser(peer_of(found), self.settings.node.ae_title)
