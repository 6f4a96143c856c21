"""Prior reports from an archive of kind "dicom": C-FIND finds them, C-MOVE sends them to the node's own listener."""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from alnnode.clients.query_retrieve import Retriever
from alnnode.errors import ServiceError
from alnnode.priors.archive_search import MAX_RESPONSE_BYTES, NEWEST_STUDIES, UID, holds_own_reports

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from pydicom import Dataset

    from alnnode.settings import ArchiveDicom

POLL = 0.1  # seconds between two checks whether the listener received the reports
WILDCARDS = re.compile(r"[*?\\]")  # PS3.4 C.2.2.2.4


class DicomArchive:
    """Searches an archive by Query/Retrieve, with the methods of `alnnode.priors.dicomweb_archive.DicomwebArchive`.

    Only series of this software are moved: the listener would treat a report of other software as a reader's marks.

    Args:
        settings: of the archive.
        ae_title: of this node.
        held: returns the files that this node has of a series, by SOP Instance UID.
        known: SOP Instance UIDs of reports that need not be moved.
        until: monotonic time in seconds at which all requests together must be complete.
    """

    def __init__(
        self,
        settings: ArchiveDicom,
        ae_title: str,
        held: Callable[[str], dict[str, Path]],
        known: Collection[str] = (),
        until: float = math.inf,
    ) -> None:
        self._until = until
        self.name = settings.name
        self._retriever, self._timeout = Retriever(settings, ae_title), settings.timeout
        self._held, self._known = held, frozenset(known)

    def reports(self, patient_id: str, until: str) -> list[Dataset]:
        """Return this node's reports on a patient from the newest studies up to a day (DA).

        Raises:
            ServiceError: the archive does not respond, or the reports do not arrive here; the text holds no patient data.
        """
        if WILDCARDS.search(patient_id):
            raise ServiceError(f"archive {self.name}: the Patient ID holds a character that C-FIND treats as a wildcard")
        keys = {"PatientID": patient_id, "StudyDate": f"-{until}", "ModalitiesInStudy": "SR", "StudyInstanceUID": ""}
        studies = self._find("STUDY", **keys)
        studies.sort(key=lambda found: (found["StudyDate"], found["StudyInstanceUID"]), reverse=True)
        return [report for study in studies[:NEWEST_STUDIES] for report in self._of_study(study["StudyInstanceUID"])]

    def _of_study(self, study: str) -> Iterator[Dataset]:
        if not UID.fullmatch(study):
            return
        keys = {"StudyInstanceUID": study, "Modality": "SR", "SeriesInstanceUID": "", "SeriesDescription": ""}
        for found in self._find("SERIES", **keys):
            series = found["SeriesInstanceUID"]
            if holds_own_reports(found["Modality"], found["SeriesDescription"], series):
                yield from self._of_series(study, series)

    def _of_series(self, study: str, series: str) -> Iterator[Dataset]:
        found = self._find("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID="")
        wanted = {match["SOPInstanceUID"] for match in found} - self._known
        if wanted - self._held(series).keys():
            self._retriever.move(study, series, stopped=self._is_over)
        for uid, path in self._wait_for(series, wanted).items():
            try:
                if uid in wanted and path.stat().st_size <= MAX_RESPONSE_BYTES:
                    yield dcmread(path)
            except (InvalidDicomError, OSError, ValueError, NotImplementedError, EOFError):
                continue

    def _find(self, level: str, **keys: str) -> list[dict[str, str]]:
        if self._is_over():
            raise ServiceError(f"archive {self.name}: the search takes too long")
        return self._retriever.find(level, self._is_over, **keys)

    def _is_over(self) -> bool:
        return time.monotonic() > self._until

    def _wait_for(self, series: str, wanted: Collection[str]) -> dict[str, Path]:
        """Wait until the listener has recorded the reports; return all files of the series."""
        until = min(time.monotonic() + self._timeout, self._until)
        while not (held := self._held(series)).keys() >= set(wanted):
            if time.monotonic() > until:
                raise ServiceError(
                    f"archive {self.name}: a report that the archive says it sent did not arrive at the listener"
                )
            time.sleep(POLL)
        return held
