"""Earlier reports from an archive: QIDO-RS for the patient's reports, WADO-RS for the objects (PS3.18 sections 10.6 and 10.4)."""

from __future__ import annotations

import io
import math
import re
import time
from email.message import Message
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from alnnode import RESULTS
from alnnode.clients.bearer_tokens import Bearer
from alnnode.errors import DeliveryError, ServiceError
from alnnode.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset

    from alnnode.settings import ArchiveDicomweb

NEWEST = 10  # studies that are looked into
LARGEST = 32 << 20  # bytes of one answer
STUDY, SERIES, MODALITY, DATE, DESCRIPTION = "0020000D", "0020000E", "00080060", "00080020", "0008103E"
UID = re.compile(r"[0-9]+(\.[0-9]+)*")


class Archive:
    """A DICOMweb origin server that is asked, never written to."""

    def __init__(
        self, settings: ArchiveDicomweb, transport: httpx.BaseTransport | None = None, until: float = math.inf
    ) -> None:
        """Take whom to ask, and until when (monotonic time, s) in all."""
        self._until = until
        self.name = settings.name
        self._url = settings.url.rstrip("/")
        self._timeout, self._tls = settings.timeout, settings.tls
        self._auth = None if settings.token_file is None else Bearer(settings.name, settings.token_file)
        self._transport = transport

    def reports(self, patient_id: str, until: str) -> list[Dataset]:
        """Return the node's reports on a patient in the newest studies up to a day (DA).

        Raises:
            ServiceError: the archive does not answer, or not as the standard says; the text holds nothing of the patient.
        """
        try:
            verify = client_context(self._tls) if self._tls else True
            with httpx.Client(timeout=self._timeout, auth=self._auth, transport=self._transport, verify=verify) as client:
                studies = self._search(
                    client,
                    "studies",
                    {"PatientID": patient_id, "StudyDate": f"-{until}", "ModalitiesInStudy": "SR", "includefield": "StudyDate"},
                )
                studies.sort(key=lambda item: (_value(item, DATE), _value(item, STUDY)), reverse=True)
                return [report for item in studies[:NEWEST] for report in self._of_study(client, _value(item, STUDY))]
        except httpx.HTTPError as error:  # its text can hold the url, and so the Patient ID
            raise ServiceError(f"archive {self.name}: no answer ({type(error).__name__})") from None
        except DeliveryError as error:
            raise ServiceError(f"archive {error}") from error

    def _of_study(self, client: httpx.Client, study: str) -> Iterator[Dataset]:
        if not UID.fullmatch(study):
            return
        found = self._search(client, f"studies/{study}/series", {"Modality": "SR", "includefield": "SeriesDescription"})
        for item in found:
            series = _value(item, SERIES)
            ours = _value(item, MODALITY) == "SR" and _value(item, DESCRIPTION).startswith(RESULTS)
            if ours and UID.fullmatch(series):
                yield from self._retrieve(client, f"studies/{study}/series/{series}")

    def _search(self, client: httpx.Client, path: str, asked: dict[str, str]) -> list[dict[str, Any]]:
        status, _, body = self._get(client, path, asked, "application/dicom+json")
        if status == HTTPStatus.NO_CONTENT:
            return []
        try:
            found = httpx.Response(200, content=body).json()
        except ValueError as error:
            raise ServiceError(f"archive {self.name}: its answer to a search is no JSON") from error
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    def _retrieve(self, client: httpx.Client, path: str) -> Iterator[Dataset]:
        _, kind, body = self._get(client, path, {}, 'multipart/related; type="application/dicom"; transfer-syntax=*')
        for part in _parts(kind, body):
            try:
                yield dcmread(io.BytesIO(part))
            except (InvalidDicomError, ValueError, NotImplementedError, EOFError):
                continue

    def _get(self, client: httpx.Client, path: str, asked: dict[str, str], accept: str) -> tuple[int, str, bytes]:
        if time.monotonic() > self._until:
            raise ServiceError(f"archive {self.name}: it takes too long")
        with client.stream("GET", f"{self._url}/{path}", params=asked, headers={"Accept": accept}) as answer:
            if answer.status_code not in {HTTPStatus.OK, HTTPStatus.NO_CONTENT}:
                raise ServiceError(f"archive {self.name}: HTTP {answer.status_code}")
            body = bytearray()
            for piece in answer.iter_bytes():
                body += piece
                if time.monotonic() > self._until:
                    raise ServiceError(f"archive {self.name}: it takes too long")
                if len(body) > LARGEST:
                    raise ServiceError(f"archive {self.name}: an answer is larger than {LARGEST >> 20} MiB")
            return answer.status_code, answer.headers.get("Content-Type", ""), bytes(body)


def _value(item: dict[str, Any], tag: str) -> str:
    try:
        return str(item[tag]["Value"][0])
    except (LookupError, TypeError):
        return ""


def _parts(kind: str, body: bytes) -> list[bytes]:
    """Return the parts of a multipart answer (RFC 2046), or the body of any other."""
    header = Message()
    header["Content-Type"] = kind
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str):
        return [body]
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"))
    return [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:] if not piece.startswith(b"--")]
