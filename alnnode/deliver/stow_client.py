"""STOW-RS user agent (PS3.18 section 10.5): one request per batch, the files sent byte for byte."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx

from alnnode.clients.bearer_tokens import Bearer, ClientCredentials
from alnnode.deliver.destination import Failures
from alnnode.errors import DeliveryError, DeliveryRefused, DestinationAway, ServiceError
from alnnode.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alnnode.deliver.destination import StoredObject
    from alnnode.settings import DestinationStow

FAILED_SOP_SEQUENCE, FAILURE_REASON, REFERENCED_SOP_SEQUENCE = "00081198", "00081197", "00081199"
# 0x0111 is PS3.7's "duplicate SOP instance"; 0xB00E is Azure's "already exists". Identical UIDs carry identical bytes here.
ALREADY_STORED = {0x0111, 0xB00E}
# PS3.18 table I.2-2 with PS3.7 Annex C: out of resources, and processing failure.
LATER = {0x0110, 0x0213}
CHUNK = 1 << 20
TRY_AGAIN = {
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
        self._url = settings.url.rstrip("/")
        self._timeout = settings.timeout
        self._tls = settings.tls
        self._transport = transport
        self._auth: httpx.Auth | None = None
        if settings.token_file is not None:
            self._auth = Bearer(settings.name, settings.token_file)
        elif settings.oauth2 is not None:
            self._auth = ClientCredentials(settings.name, settings.oauth2, self._client)

    def echo(self) -> None:
        """Search for one study; any answer but a refusal or a server error will do, as not every archive searches."""
        answer = self._request("GET", f"{self._url}/studies", params={"limit": "1"})
        if answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            raise DeliveryRefused(f"{self.name}: HTTP {answer.status_code}; check the url and the access rights")
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR and answer.status_code != HTTPStatus.NOT_IMPLEMENTED:
            raise DeliveryError(f"{self.name}: HTTP {answer.status_code}")

    def send(self, objects: Sequence[StoredObject]) -> None:
        """POST every object in one request; raises as `Destination.send` says."""
        if not objects:
            return
        boundary = uuid4().hex
        try:
            parts = [(_head(item, boundary), item) for item in objects]
            length = sum(len(head) + item.path.stat().st_size + 2 for head, item in parts) + len(boundary) + 6
        except OSError as error:
            raise DeliveryError(f"{self.name}: an outbox file cannot be read ({type(error).__name__})") from error
        answer = self._request(
            "POST",
            f"{self._url}/studies",
            content=_body(parts, boundary),
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Content-Length": str(length),
            },
        )
        self._judge(answer, len(objects))

    def _judge(self, answer: httpx.Response, sent: int) -> None:
        """Read the Store Instances Response (PS3.18 section 10.5.3 and Annex I) to so many objects."""
        status = answer.status_code
        if status not in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.CONFLICT}:
            message = f"{self.name}: HTTP {status}"
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in TRY_AGAIN:
                raise DeliveryError(message)
            raise DeliveryRefused(f"{message}; check the url and the access rights")
        reasons = _failure_reasons(answer)
        if reasons is None or (status == HTTPStatus.CONFLICT and not reasons):
            if status in {HTTPStatus.OK, HTTPStatus.CREATED}:
                return
            raise DeliveryError(f"{self.name}: HTTP {status} without saying which objects failed")
        failures = Failures(self.name)
        for reason in reasons:
            if reason in LATER or reason >> 8 == 0xA7 or reason >> 12 == 0xC:
                failures.later.append(f"failure reason 0x{reason:04X}")
            elif reason not in ALREADY_STORED:
                failures.refused.append(f"refused an object with failure reason 0x{reason:04X}")
        # An archive may pass over parts in silence, and answer 200.
        stored = _stored(answer)
        if stored is not None and stored + len(reasons) < sent:
            failures.later.append(f"HTTP {status}, but of {sent} objects it names {stored} as stored")
        failures.conclude()

    def _request(self, method: str, url: str, **options: object) -> httpx.Response:
        headers = {"Accept": "application/dicom+json", **(options.pop("headers", None) or {})}  # type: ignore[dict-item]
        try:
            with self._client() as client:
                return client.request(method, url, headers=headers, auth=self._auth, **options)  # type: ignore[arg-type]
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise DestinationAway(f"{self.name}: no connection ({type(error).__name__})") from error
        except httpx.HTTPError as error:
            # The text of httpx's errors can hold the url, and so a password.
            raise DeliveryError(f"{self.name}: no answer ({type(error).__name__})") from error
        except OSError as error:
            raise DeliveryError(f"{self.name}: an outbox file cannot be read ({type(error).__name__})") from error

    def _client(self) -> httpx.Client:
        try:
            verify = client_context(self._tls) if self._tls else True
        except ServiceError as error:
            raise DeliveryError(f"{self.name}: {error}") from error
        return httpx.Client(timeout=self._timeout, transport=self._transport, verify=verify)


def _head(item: StoredObject, boundary: str) -> bytes:
    return (
        # Without the transfer syntax, which the object itself names: Orthanc passes over a part whose media type has a parameter.
        f"--{boundary}\r\nContent-Type: application/dicom\r\nContent-Length: {item.path.stat().st_size}\r\n\r\n"
    ).encode("ascii")


def _body(parts: Sequence[tuple[bytes, StoredObject]], boundary: str) -> Iterator[bytes]:
    for head, item in parts:
        yield head
        with item.path.open("rb") as file:
            while piece := file.read(CHUNK):
                yield piece
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode("ascii")


def _stored(answer: httpx.Response) -> int | None:
    """Return how many objects the Referenced SOP Sequence names; None where there is none."""
    try:
        document = answer.json()
        document = document[0] if isinstance(document, list) else document
        return len(document[REFERENCED_SOP_SEQUENCE].get("Value", []))
    except (ValueError, AttributeError, LookupError, TypeError):
        return None


def _failure_reasons(answer: httpx.Response) -> list[int] | None:
    """Return the Failure Reason of every item of the Failed SOP Sequence; None when the body says nothing readable."""
    try:
        document = answer.json()
        document = document[0] if isinstance(document, list) else document
        items = document.get(FAILED_SOP_SEQUENCE, {}).get("Value", [])
        return [int(item.get(FAILURE_REASON, {}).get("Value", [0x0110])[0]) for item in items]
    except (ValueError, AttributeError, LookupError, TypeError):
        return None
