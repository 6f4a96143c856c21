"""Prior reports from an archive of kind "dicomweb": QIDO-RS finds them, WADO-RS retrieves them (PS3.18 sections 10.6 and 10.4)."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from alnnode.clients.dicomweb import DicomwebClient, ResponseLimits
from alnnode.errors import DeliveryError, ServiceError
from alnnode.priors.archive_search import MAX_RESPONSE_BYTES, NEWEST_STUDIES, UID, holds_own_reports

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from pydicom import Dataset

    from alnnode.clients.dicomweb import DicomwebConnection
    from alnnode.settings import ArchiveDicomweb

STUDY, SERIES, MODALITY, DATE, DESCRIPTION = "0020000D", "0020000E", "00080060", "00080020", "0008103E"


class DicomwebArchive:
    """Searches a DICOMweb origin server.

    Args:
        settings: of the archive.
        transport: replaces the network in tests.
        until: monotonic time in seconds at which all requests together must be complete.
    """

    def __init__(
        self, settings: ArchiveDicomweb, transport: httpx.BaseTransport | None = None, until: float = math.inf
    ) -> None:
        self.name = settings.name
        self._client = DicomwebClient(settings, transport)
        self._limits = ResponseLimits(MAX_RESPONSE_BYTES, until)

    def reports(self, patient_id: str, until: str) -> list[Dataset]:
        """Return this node's reports on a patient from the newest studies up to a day (DA).

        Raises:
            ServiceError: the archive does not respond as the standard requires; the text holds no patient data.
        """
        query = {"PatientID": patient_id, "StudyDate": f"-{until}", "ModalitiesInStudy": "SR", "includefield": "StudyDate"}
        try:
            with self._client.connect() as connection:
                studies = connection.search("studies", query, self._limits)
                studies.sort(key=lambda item: (first_value(item, DATE), first_value(item, STUDY)), reverse=True)
                return [
                    report
                    for item in studies[:NEWEST_STUDIES]
                    for report in self._of_study(connection, first_value(item, STUDY))
                ]
        except DeliveryError as error:
            raise ServiceError(f"archive {self.name}: {error}") from error

    def _of_study(self, connection: DicomwebConnection, study: str) -> Iterator[Dataset]:
        if not UID.fullmatch(study):
            return
        query = {"Modality": "SR", "includefield": "SeriesDescription"}
        for item in connection.search(f"studies/{study}/series", query, self._limits):
            series = first_value(item, SERIES)
            if holds_own_reports(first_value(item, MODALITY), first_value(item, DESCRIPTION), series):
                yield from self._retrieve(connection, f"studies/{study}/series/{series}")

    def _retrieve(self, connection: DicomwebConnection, resource: str) -> Iterator[Dataset]:
        for part in connection.retrieve(resource, self._limits):
            try:
                yield dcmread(io.BytesIO(part))
            except (InvalidDicomError, ValueError, NotImplementedError, EOFError):
                continue


def first_value(item: dict[str, Any], tag: str) -> str:
    """Return the first value of an attribute of the DICOM JSON model as text; empty without one."""
    try:
        return str(item[tag]["Value"][0])
    except (LookupError, TypeError):
        return ""
