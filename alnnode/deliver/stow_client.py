"""STOW-RS user agent (PS3.18 section 10.5): sends the files of a batch byte for byte in one request."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from alnnode.clients.dicomweb import DicomwebClient
from alnnode.clients.faults import file_words, http_words
from alnnode.counted import counted
from alnnode.deliver.destination import BatchFailures
from alnnode.errors import DeliveryError, DeliveryRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from alnnode.deliver.destination import StoredObject
    from alnnode.settings import DestinationStow

FAILED_SOP_SEQUENCE, FAILURE_REASON, REFERENCED_SOP_SEQUENCE = "00081198", "00081197", "00081199"
PROCESSING_FAILURE = 0x0110
# 0x0111 is "duplicate SOP instance" of PS3.7; 0xB00E is "already exists" of Azure. Equal UIDs of this node mean equal bytes.
ALREADY_STORED = {0x0111, 0xB00E}
# PS3.18 table I.2-2 with PS3.7 Annex C: processing failure, and out of resources.
RETRIED_REASONS = {PROCESSING_FAILURE, 0x0213}
RETRIED_STATUSES = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.LOCKED,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}


class StowDestination:
    """A DICOMweb origin server."""

    def __init__(self, settings: DestinationStow, transport: httpx.BaseTransport | None = None) -> None:
        self.name = settings.name
        self._client = DicomwebClient(settings, transport)

    def echo(self) -> None:
        """Search for one study. Not every archive can search, so that only a refusal or a server error counts as failure."""
        with self._client.connect() as connection:
            status = connection.probe().status_code
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            raise DeliveryRefused(http_words(status))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED:
            raise DeliveryError(http_words(status))

    def send(self, objects: Sequence[StoredObject]) -> None:
        """POST every object in one request; raises the errors of `Destination.send`."""
        if not objects:
            return
        try:
            with self._client.connect() as connection:
                response = connection.store([item.path for item in objects])
        except OSError as error:
            raise DeliveryError(file_words(error)) from error
        self._check(response, len(objects))

    def _check(self, response: httpx.Response, sent: int) -> None:
        """Read the Store Instances Response (PS3.18 section 10.5.3 and Annex I) to ``sent`` objects, and raise its failures."""
        status = response.status_code
        if status not in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.CONFLICT}:
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in RETRIED_STATUSES:
                raise DeliveryError(http_words(status))
            raise DeliveryRefused(http_words(status))
        document = _document(response)
        reasons = _failure_reasons(document)
        if reasons is None or (status == HTTPStatus.CONFLICT and not reasons):
            if status in {HTTPStatus.OK, HTTPStatus.CREATED}:
                return
            raise DeliveryError(f"HTTP {status} without the list of the objects that failed")
        failures = BatchFailures()
        for reason in reasons:
            if reason in RETRIED_REASONS or reason >> 8 == 0xA7 or reason >> 12 == 0xC:
                failures.later.append(f"failure reason 0x{reason:04X}")
            elif reason not in ALREADY_STORED:
                failures.refused.append(f"refused an object with failure reason 0x{reason:04X}")
        # An archive may ignore parts and still return 200.
        stored = _stored(document)
        if stored is not None and stored + len(reasons) < sent:
            failures.later.append(f"HTTP {status}, but the response names {stored} of {counted(sent, 'object')} as stored")
        failures.raise_if_any()


def _document(response: httpx.Response) -> Any:
    """Return the data set of the response in the DICOM JSON model; None when the body is not JSON."""
    try:
        document = response.json()
    except ValueError:
        return None
    return document[0] if isinstance(document, list) and document else document


def _stored(document: Any) -> int | None:
    """Return the number of objects in the Referenced SOP Sequence; None without that sequence."""
    try:
        return len(document[REFERENCED_SOP_SEQUENCE].get("Value", []))
    except (AttributeError, LookupError, TypeError):
        return None


def _failure_reasons(document: Any) -> list[int] | None:
    """Return the Failure Reason of every item of the Failed SOP Sequence; None when the document cannot be read."""
    try:
        items = document.get(FAILED_SOP_SEQUENCE, {}).get("Value", [])
        return [int(item.get(FAILURE_REASON, {}).get("Value", [PROCESSING_FAILURE])[0]) for item in items]
    except (ValueError, AttributeError, LookupError, TypeError):
        return None
