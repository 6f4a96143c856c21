"""What the routes of the HTTP service work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from alnnode.analyse.jobs import Jobs
from alnnode.analyse.operator_actions import OperatorActions
from alnnode.audit.trail import Trail
from alnnode.db import engine
from alnnode.dicomweb.attribute_index import Attributes
from alnnode.dicomweb.catalogue import Catalogue
from alnnode.receive.acceptor import Acceptor
from alnnode.receive.received_series import ReceivedSeries
from alnnode.spool.spool import Spool
from alnnode.task_queue import Producer
from alnnode.web.access import Access, Principal
from alnnode.worklist.subscriptions import Subscriptions
from alnnode.worklist.worklist import Worklist

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from starlette.requests import HTTPConnection

    from alnnode.settings import Settings


@dataclass(frozen=True)
class Services:
    """The rooms of the node that the web room uses, opened once per process."""

    settings: Settings
    engine: Engine
    jobs: Jobs
    operator: OperatorActions
    spool: Spool
    catalogue: Catalogue
    attributes: Attributes
    acceptor: Acceptor
    producer: Producer
    access: Access
    trail: Trail
    worklist: Worklist
    subscriptions: Subscriptions

    @classmethod
    def open(cls, settings: Settings) -> Services:
        """Open the database and the spool.

        Raises:
            SettingsError: the secret of a token cannot be read.
        """
        access = Access(settings.web, settings.internal.web_request_rate)
        database = engine.create(settings.database_url)
        spool = Spool(settings.node.data_dir / "spool")
        return cls(
            settings=settings,
            engine=database,
            jobs=Jobs(database),
            operator=OperatorActions(database),
            spool=spool,
            catalogue=Catalogue(database),
            attributes=Attributes(spool),
            acceptor=Acceptor(settings, ReceivedSeries(database), spool),
            producer=Producer(settings),
            access=access,
            trail=Trail(settings),
            worklist=Worklist(database, spool),
            subscriptions=Subscriptions(database),
        )

    def close(self) -> None:
        """Record what was accepted, and close."""
        self.acceptor.close()
        self.producer.close()
        self.trail.close()
        self.engine.dispose()


def services(connection: HTTPConnection) -> Services:
    """Return the services of the application that answers this request."""
    return cast("Services", connection.app.state.services)


def principal(connection: HTTPConnection) -> Principal:
    """Return who asks; the guard let nobody else through."""
    return cast("Principal", connection.state.principal)


def root(connection: HTTPConnection) -> str:
    """Return the URL of the DICOMweb service, without a slash at the end.

    It is `public_url`, or else the address at which the request arrived. The client's Host header is not believed: what it names would end in
    answers that others keep.
    """
    configured = services(connection).settings.web.public_url
    return f"{configured or _own(connection)}/dicom-web"


def _own(connection: HTTPConnection) -> str:
    host, port = connection.scope.get("server") or ("127.0.0.1", None)
    if connection.headers.get("host", "").partition(":")[0] == "localhost" and host in {"127.0.0.1", "::1"}:
        host = "localhost"  # the same place, and to a browser another origin
    scheme = {"ws": "http", "wss": "https"}.get(connection.scope["scheme"], connection.scope["scheme"])
    place = f"[{host}]" if ":" in host else host
    return f"{scheme}://{place}" if port in {None, 80 if scheme == "http" else 443} else f"{scheme}://{place}:{port}"
