"""Open what the HTTP service works with: the services of every package that has routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alnnode.audit.trail import Trail
from alnnode.db import engine
from alnnode.dicomweb.services import DicomwebServices
from alnnode.http.access import AccessControl
from alnnode.http.address_share import SHARE
from alnnode.http.request_context import HttpServices
from alnnode.receive.acceptor import Acceptor
from alnnode.receive.received_series import ReceivedSeries
from alnnode.spool.opening import open_spool
from alnnode.status.services import StatusServices
from alnnode.worklist.services import WorklistServices

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from alnnode.settings import Settings

# A pool can double. One address can have `SHARE` queries at the same time, and the others have the rest.
POOL_SIZE = SHARE // 2 + 4


@dataclass(frozen=True)
class WebServices:
    """Opened once per process, and closed after the application has ended.

    Attributes:
        settings: of the node.
        engine: the database.
        acceptor: stores received objects, and writes their rows in a thread.
        trail: the audit trail.
        http: the access control.
        dicomweb: for DICOMweb.
        worklist: for UPS-RS and the performer of workitems.
        status: for the status page, the health checks and the metrics.
    """

    settings: Settings
    engine: Engine
    acceptor: Acceptor
    trail: Trail
    http: HttpServices
    dicomweb: DicomwebServices
    worklist: WorklistServices
    status: StatusServices

    @classmethod
    def open(cls, settings: Settings) -> WebServices:
        """Open the database and the spool.

        Raises:
            SettingsError: the secret of a token cannot be read.
        """
        access = AccessControl(settings.web, settings.internal.web_request_rate)
        database = engine.create(settings.database_url, POOL_SIZE)
        spool = open_spool(settings)
        acceptor = Acceptor(settings, ReceivedSeries(database), spool)
        dicomweb = DicomwebServices.open(settings, database, spool, acceptor)
        worklist = WorklistServices.open(settings, database, spool, acceptor)
        return cls(
            settings=settings,
            engine=database,
            acceptor=acceptor,
            trail=Trail(settings),
            http=HttpServices(settings.web, access),
            dicomweb=dicomweb,
            worklist=worklist,
            status=StatusServices.open(settings, database, dicomweb, worklist),
        )

    def close(self) -> None:
        """Write the rows of accepted objects and the audit messages, end the processes, and close the database."""
        self.status.close()
        self.acceptor.close()
        self.trail.close()
        self.engine.dispose()
