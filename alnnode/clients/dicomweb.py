"""DICOMweb user agent (PS3.18 sections 10.4 to 10.6): the one place for address, TLS, bearer token, timeouts, limits and errors."""

from __future__ import annotations

import json
import math
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx

from alnnode.clients.bearer_tokens import ClientCredentials, TokenFile
from alnnode.clients.faults import http_words, network_words
from alnnode.errors import DeliveryError, DestinationAway, ServiceError
from alnnode.multipart import (
    RELATED,
    MalformedBodyError,
    OutgoingPart,
    media_type,
    read_parts,
    related,
    split_parts,
    write_parts,
    written_length,
)
from alnnode.tls import client_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from pathlib import Path

    from alnnode.multipart import BodyPart
    from alnnode.settings import ArchiveDicomweb, DestinationStow

DICOM, DICOM_JSON = "application/dicom", "application/dicom+json"
AS_STORED = (
    f'{RELATED}; type="{DICOM}"; transfer-syntax=*'  # Accept: objects in the transfer syntax in which the server has them
)
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class ResponseLimits:
    """Limits of one response.

    Attributes:
        max_bytes: of the body.
        deadline: monotonic time in seconds at which the response must be complete.
    """

    max_bytes: int
    deadline: float = math.inf


class DicomwebClient:
    """Sends requests to one origin server. Errors name its host and port, and never its URL, which can hold a password or patient data."""

    def __init__(self, settings: DestinationStow | ArchiveDicomweb, transport: httpx.BaseTransport | None = None) -> None:
        self._url = settings.url.rstrip("/")
        url = httpx.URL(settings.url)
        self._address = (url.host, url.port or (443 if url.scheme == "https" else 80))
        self._timeout, self._tls, self._transport = settings.timeout, settings.tls, transport
        self._auth: httpx.Auth | None = None
        oauth2 = settings.oauth2 if settings.kind == "stow" else None
        if settings.token_file is not None:
            self._auth = TokenFile(settings.token_file)
        elif oauth2 is not None:
            self._auth = ClientCredentials(oauth2, self._open)

    @contextmanager
    def connect(self) -> Iterator[DicomwebConnection]:
        """Keep connections open for the requests of a ``with`` block. The certificates are read for each block again.

        Raises:
            DestinationAway: no connection is possible.
            DeliveryError: the server does not respond, or a file of the settings cannot be used.
        """
        with self._translate_errors(), self._open(self._auth) as client:
            yield DicomwebConnection(self._url, client)

    @asynccontextmanager
    async def retrieve(self, resource: str, folder: Path, max_part: int) -> AsyncIterator[AsyncIterator[BodyPart]]:
        """Retrieve objects (WADO-RS) one by one, as the server sends them.

        Args:
            resource: path below the service root, for example "studies/1.2/series/1.2.3".
            folder: takes the temporary files of large objects.
            max_part: bytes that one object may have.

        Yields:
            The body parts; the caller closes each. Iteration raises `MalformedBodyError` when the connection is lost, and
            `PartTooLargeError`.

        Raises:
            DestinationAway: no connection is possible.
            DeliveryError: the server does not respond as the standard requires.
        """
        headers = {"Accept": AS_STORED}
        with self._translate_errors():
            async with (
                httpx.AsyncClient(timeout=self._timeout, verify=self._verify(), auth=self._auth) as client,
                client.stream("GET", f"{self._url}/{resource}", headers=headers) as response,
            ):
                if response.status_code != HTTPStatus.OK:
                    raise DeliveryError(http_words(response.status_code))
                kind, parameters = media_type(response.headers.get("content-type", ""))
                if kind != RELATED or "boundary" not in parameters:
                    raise DeliveryError(f"the response is not {RELATED}")
                yield read_parts(_pieces(response), parameters["boundary"], folder, max_part)

    def _open(self, auth: httpx.Auth | None = None) -> httpx.Client:
        return httpx.Client(auth=auth, timeout=self._timeout, transport=self._transport, verify=self._verify())

    def _verify(self) -> Any:
        """Return the TLS context of the settings; True selects the certificate authorities of the system."""
        try:
            return client_context(self._tls) if self._tls else True
        except ServiceError as error:
            raise DeliveryError(f"{error}") from error

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        # The texts of httpx's errors can hold the URL: only host and port are named, and no traceback refers to them.
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise DestinationAway(network_words(error, *self._address)) from None
        except httpx.TimeoutException:
            raise DeliveryError(
                f"no response from {self._address[0]}:{self._address[1]} within {self._timeout:g} s: read the log of the server, or raise timeout"
            ) from None
        except httpx.HTTPError as error:
            raise DeliveryError(network_words(error, *self._address)) from None


async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the body; a lost connection counts as a body that ends early, so that the objects before it are used."""
    try:
        async for piece in response.aiter_bytes(CHUNK):
            yield piece
    except httpx.HTTPError as error:
        raise MalformedBodyError(f"the connection was lost, {type(error).__name__}") from None


class DicomwebConnection:
    """The requests of one ``with`` block of `DicomwebClient.connect`; resources are paths below the service root."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self._url, self._client = url, client

    def probe(self) -> httpx.Response:
        """Search for one study; return the response, whatever it is."""
        return self._client.get(f"{self._url}/studies", params={"limit": "1"}, headers={"Accept": DICOM_JSON})

    def delete(self, resource: str) -> httpx.Response:
        """Ask the server to delete a resource, which PS3.18 does not define; return the response, whatever it is."""
        return self._client.delete(f"{self._url}/{resource}")

    def store(self, files: Sequence[Path]) -> httpx.Response:
        """Send Part 10 files byte for byte in one request (STOW-RS); return the response, whatever it is.

        Raises:
            OSError: a file cannot be read.
        """
        boundary = uuid4().hex
        # The media type has no transfer syntax, which each object names itself: Orthanc ignores a part whose media type has a parameter.
        parts = [OutgoingPart(DICOM, _chunks(file), file.stat().st_size) for file in files]
        headers = {
            "Accept": DICOM_JSON,
            "Content-Type": related(DICOM, boundary),
            "Content-Length": str(written_length(parts, boundary)),
        }
        return self._client.post(f"{self._url}/studies", content=write_parts(parts, boundary), headers=headers)

    def search(self, resource: str, query: Mapping[str, str], limits: ResponseLimits) -> list[dict[str, Any]]:
        """Search (QIDO-RS); return the matches as data sets in the DICOM JSON model.

        Raises:
            DeliveryError: the response exceeds a limit, or is not what the standard requires.
        """
        response, body = self._get(resource, query, DICOM_JSON, limits)
        if response.status_code == HTTPStatus.NO_CONTENT:
            return []
        try:
            found = json.loads(body)
        except ValueError:
            raise DeliveryError("the response to a search is not JSON") from None
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    def retrieve(self, resource: str, limits: ResponseLimits) -> list[bytes]:
        """Retrieve small objects (WADO-RS) into memory; of a body that is cut off, those that are complete.

        Raises:
            DeliveryError: the response exceeds a limit, or is not what the standard requires.
        """
        response, body = self._get(resource, {}, AS_STORED, limits)
        boundary = media_type(response.headers.get("Content-Type", ""))[1].get("boundary")
        if boundary is None:
            return [body]
        contents = split_parts(body, boundary)
        if body and not contents:
            raise DeliveryError("the response has no complete part")
        return contents

    def _get(
        self, resource: str, query: Mapping[str, str], accept: str, limits: ResponseLimits
    ) -> tuple[httpx.Response, bytes]:
        self._check_deadline(limits)
        with self._client.stream("GET", f"{self._url}/{resource}", params=query, headers={"Accept": accept}) as response:
            if response.status_code not in {HTTPStatus.OK, HTTPStatus.NO_CONTENT}:
                raise DeliveryError(http_words(response.status_code))
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                self._check_deadline(limits)
                if len(body) > limits.max_bytes:
                    raise DeliveryError(f"a response is larger than {limits.max_bytes >> 20} MiB")
            return response, bytes(body)

    def _check_deadline(self, limits: ResponseLimits) -> None:
        if time.monotonic() > limits.deadline:
            raise DeliveryError("the response takes too long")


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
