"""Fetch a series from a configured archive by WADO-RS (PS3.18 section 10.4) and keep it through the one door."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import httpx

from alnnode.clients.bearer_tokens import Bearer
from alnnode.dicomweb import multipart
from alnnode.dicomweb.stow import DICOM, Store
from alnnode.dicomweb.stow_outcome import Outcome
from alnnode.errors import DeliveryError, IncompleteSeries, ServiceError
from alnnode.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.settings import Archive, ArchiveDicomweb
    from alnnode.web.services import Services


class Wanted(NamedTuple):
    """A series, and where its requester says that it is: Retrieve URLs and Retrieve AE Titles, both empty when nowhere."""

    study: str
    series: str
    urls: tuple[str, ...] = ()
    ae_titles: tuple[str, ...] = ()


async def fetch(opened: Services, archive: ArchiveDicomweb, study: str, series: str) -> int:
    """Retrieve a series; how many objects were kept.

    Raises:
        IncompleteSeries: the answer broke off, or an object of it could not be kept.
        ServiceError: the archive does not answer as it should, and nothing came.
    """
    url = f"{archive.url}/studies/{study}/series/{series}"
    headers = {"Accept": f'multipart/related; type="{DICOM}"; transfer-syntax=*'}
    auth = Bearer(archive.name, archive.token_file) if archive.token_file else None
    outcome = Outcome()
    try:
        async with (
            httpx.AsyncClient(timeout=archive.timeout, verify=client_context(archive.tls) if archive.tls else True) as client,
            client.stream("GET", url, headers=headers, auth=auth) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise ServiceError(f"archive {archive.name}: HTTP {answer.status_code}")
            kind, parameters = multipart.parameters(answer.headers.get("content-type", ""))
            if kind != "multipart/related" or "boundary" not in parameters:
                raise ServiceError(f"archive {archive.name}: its answer is not multipart/related")
            folder, limit = opened.spool.root / "incoming", opened.settings.listener.max_object_mb << 20
            parts = multipart.parts(answer.aiter_bytes(1 << 20), parameters["boundary"], folder, limit)
            await Store(opened.acceptor, archive.name, study, outcome).all(parts)
    # The texts of both hold the URL, and so a UID.
    except httpx.HTTPError as error:
        failure = IncompleteSeries if outcome.stored else ServiceError
        raise failure(f"archive {archive.name}: no answer ({type(error).__name__})") from error
    except DeliveryError as error:
        raise ServiceError(f"archive {error}") from error
    if outcome.fault is not None or outcome.failed or not outcome.stored:
        refused = ", ".join(sorted({f"0x{failure.reason:04X}" for failure in outcome.failed}))
        failure = IncompleteSeries if outcome.stored else ServiceError
        raise failure(f"archive {archive.name}: the series did not come whole ({outcome.fault or refused or 'empty'})")
    # Not before: what came in part is not complete, and is fetched again.
    opened.acceptor.released({row.series_uid for row in outcome.stored})
    return len(outcome.stored)


def candidates(archives: Sequence[Archive], wanted: Wanted) -> list[Archive]:
    """Return the archives to ask: those of the Retrieve URLs and AE titles which the requester gave, or all when there are none.

    Only configured archives are ever asked, at an address of the settings: a requester must not make the node call what it likes.
    """
    if not wanted.urls and not wanted.ae_titles:
        return list(archives)
    return [
        archive
        for archive in archives
        if (
            archive.ae_title in wanted.ae_titles
            if archive.kind == "dicom"
            else any(f"{url}/".startswith(f"{archive.url}/") for url in wanted.urls)
        )
    ]
