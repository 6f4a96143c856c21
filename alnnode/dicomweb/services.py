"""What the DICOMweb routes work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, cast

from anyio import CapacityLimiter
from prometheus_client import Counter

from alnnode.dicomweb.attribute_index import AttributeIndex
from alnnode.dicomweb.catalogue import Catalogue
from alnnode.http.renderings import Renderings

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from starlette.requests import HTTPConnection

    from alnnode.receive.acceptor import Acceptor
    from alnnode.settings import Settings
    from alnnode.spool.spool import Spool


@dataclass(frozen=True)
class DicomwebServices:
    """Opened once per process; the application holds them as ``state.dicomweb``.

    Attributes:
        settings: of the node.
        spool: the files of all objects.
        acceptor: stores received objects.
        catalogue: the objects that the node holds, from the database.
        attributes: the attributes of these objects, from the spool.
        stow_objects: counts the objects of STOW-RS requests by outcome ("stored", "refused"); `alnnode.status.metrics` publishes it.
        renderings: renders images, a few at the same time.
        encoding: lets one request at a time encode objects from the DICOM JSON model; each may need some 200 MB.
        converting: is held while a large object is converted to another transfer syntax.
    """

    settings: Settings
    spool: Spool
    acceptor: Acceptor
    catalogue: Catalogue
    attributes: AttributeIndex
    stow_objects: Counter
    renderings: Renderings
    encoding: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    converting: Lock = field(default_factory=Lock)

    @classmethod
    def open(cls, settings: Settings, engine: Engine, spool: Spool, acceptor: Acceptor) -> DicomwebServices:
        """Open the catalogue and the index over a database and a spool."""
        return cls(
            settings=settings,
            spool=spool,
            acceptor=acceptor,
            catalogue=Catalogue(engine),
            attributes=AttributeIndex(spool),
            stow_objects=Counter("alnnode_stow_objects", "Objects received by STOW-RS", ["outcome"], registry=None),
            renderings=Renderings(settings.web.trusted_proxies),
        )


def dicomweb_services(connection: HTTPConnection) -> DicomwebServices:
    """Return the services of the application that answers this request."""
    return cast("DicomwebServices", connection.app.state.dicomweb)
