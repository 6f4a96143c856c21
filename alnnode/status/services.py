"""What the status page, the health checks and the metrics work with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from alnnode.db.pauses import Pauses
from alnnode.process.job_logs import JobLogs
from alnnode.receive.rejected_associations import RejectedAssociations
from alnnode.status.health import Readiness
from alnnode.status.metrics import Metrics, MetricSources
from alnnode.status.model_identity import CachedModelIdentity
from alnnode.status.overview import Overview
from alnnode.status.progress import WorkProgress
from alnnode.status.route_trials import RouteTrials

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from starlette.requests import HTTPConnection

    from alnnode.analyse.jobs import Jobs
    from alnnode.analyse.operator_actions import OperatorActions
    from alnnode.dicomweb.attribute_index import AttributeIndex
    from alnnode.dicomweb.catalogue import Catalogue
    from alnnode.dicomweb.services import DicomwebServices
    from alnnode.http.renderings import Renderings
    from alnnode.settings import Settings
    from alnnode.spool.spool import Spool
    from alnnode.worklist.services import WorklistServices


@dataclass(frozen=True)
class StatusServices:
    """Opened once per process; the application holds them as ``state.status``.

    Attributes:
        settings: of the node.
        jobs: of this node.
        operator: retries and cancels jobs.
        spool: the files of all objects.
        catalogue: the objects that the node holds, for the search by accession number.
        attributes: the attributes of these objects.
        overview: statistics over all jobs.
        readiness: the checks of ``/health/ready``.
        metrics: of this process.
        rejections: the associations that listeners rejected.
        pauses: what an administrator paused.
        model: the identity of the model that analyses.
        job_logs: the log of each job.
        read_at: when this process read its configuration.
        renderings: renders images, together with those of DICOMweb.
        trials: tries routes.
    """

    settings: Settings
    jobs: Jobs
    operator: OperatorActions
    spool: Spool
    catalogue: Catalogue
    attributes: AttributeIndex
    overview: Overview
    readiness: Readiness
    metrics: Metrics
    rejections: RejectedAssociations
    pauses: Pauses
    model: CachedModelIdentity
    job_logs: JobLogs
    read_at: datetime
    renderings: Renderings
    trials: RouteTrials

    @classmethod
    def open(cls, settings: Settings, engine: Engine, dicomweb: DicomwebServices, worklist: WorklistServices) -> StatusServices:
        """Open the status over the services of the other routes."""
        overview, rejections, pauses = Overview(engine), RejectedAssociations(engine), Pauses(engine)
        sources = MetricSources(overview, WorkProgress(engine), worklist.worklist, rejections, pauses)
        return cls(
            settings=settings,
            jobs=worklist.jobs,
            operator=worklist.operator,
            spool=dicomweb.spool,
            catalogue=dicomweb.catalogue,
            attributes=dicomweb.attributes,
            overview=overview,
            readiness=Readiness(settings),
            metrics=Metrics(settings, sources, dicomweb.stow_objects),
            rejections=rejections,
            pauses=pauses,
            model=CachedModelIdentity(settings),
            job_logs=JobLogs(settings.node.data_dir),
            read_at=datetime.now(UTC),
            renderings=dicomweb.renderings,
            trials=RouteTrials(),
        )

    def close(self) -> None:
        """End the processes that try routes."""
        self.trials.close()


def status_services(connection: HTTPConnection) -> StatusServices:
    """Return the services of the application that answers this request."""
    return cast("StatusServices", connection.app.state.status)
