"""Fetch the input series of a workitem from a configured archive by WADO-RS (PS3.18 section 10.4), and store it as if it were received."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.dicomweb.part_storage import PartStorage
from alnnode.dicomweb.stow_request import StowRequest
from alnnode.errors import DeliveryError, IncompleteSeries, ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.settings import Archive, ArchiveDicomweb
    from alnnode.worklist.services import WorklistServices
    from alnnode.worklist.workitem_input import InputSeries


async def fetch(services: WorklistServices, archive: ArchiveDicomweb, study: str, series: str) -> int:
    """Retrieve a series; return the number of objects that were stored.

    Raises:
        IncompleteSeries: the response ended early, or an object of it could not be stored.
        ServiceError: the archive does not respond as the standard requires, and no object was stored.
    """
    from alnnode.clients.dicomweb import DicomwebClient  # noqa: PLC0415 - the HTTP service starts without an HTTP client

    folder, max_object = services.spool.root / "incoming", services.settings.listener.max_object_mb << 20
    request = StowRequest(services.acceptor, archive.name, study)
    outcome = request.outcome
    try:
        async with DicomwebClient(archive).retrieve(f"studies/{study}/series/{series}", folder, max_object) as parts:
            await PartStorage(request).store_all(parts)
    except DeliveryError as error:
        raise ServiceError(f"archive {archive.name}: {error}") from error
    if outcome.fault is not None or outcome.failed or not outcome.stored:
        refused = ", ".join(sorted({f"0x{failure.reason:04X}" for failure in outcome.failed}))
        failure = IncompleteSeries if outcome.stored else ServiceError
        raise failure(f"archive {archive.name}: the series is incomplete ({outcome.fault or refused or 'no object'})")
    # Only after the last object: a part of a series is not complete, and is fetched again.
    services.acceptor.released({row.series_uid for row in outcome.stored})
    return len(outcome.stored)


def candidates(archives: Sequence[Archive], series: InputSeries) -> list[Archive]:
    """Return the archives to ask: those of the stated Retrieve URLs and AE titles, or all when none is stated.

    The node asks only configured archives, at the address in the settings: a requester must not make the node call an address of its choice.
    """
    if not series.urls and not series.ae_titles:
        return list(archives)
    return [
        archive
        for archive in archives
        if (
            archive.ae_title in series.ae_titles
            if archive.kind == "dicom"
            else any(f"{url}/".startswith(f"{archive.url}/") for url in series.urls)
        )
    ]
