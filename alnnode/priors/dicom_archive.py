"""Earlier reports from an archive of kind "dicom": C-FIND for the patient's reports, C-MOVE to the node's own listener for the objects."""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from alnnode import RESULTS
from alnnode.clients.query_retrieve import Retriever
from alnnode.errors import ServiceError
from alnnode.priors.dicomweb_archive import LARGEST, NEWEST, UID

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from pydicom import Dataset

    from alnnode.settings import ArchiveDicom

POLL = 0.1  # seconds between two looks at what the listener took
PATTERN = re.compile(r"[*?\\]")  # PS3.4 C.2.2.2.4


class DicomArchive:
    """Asked as `alnnode.priors.dicomweb_archive.Archive` is.

    Only series that say that they are results of this software are moved: anybody else's reports would be a reader's marks here.
    """

    def __init__(
        self,
        settings: ArchiveDicom,
        ae_title: str,
        held: Callable[[str], dict[str, Path]],
        known: Collection[str] = (),
        until: float = math.inf,
    ) -> None:
        """Take what tells the files that this node holds of a series, by SOP Instance UID, the reports that need not come, and until when to ask.

        ``until`` is monotonic time, s, and bounds all questions together.
        """
        self._until = until
        self.name = settings.name
        self._retriever, self._timeout = Retriever(settings, ae_title), settings.timeout
        self._held, self._known = held, frozenset(known)

    def reports(self, patient_id: str, until: str) -> list[Dataset]:
        """Return the node's reports on a patient in the newest studies up to a day (DA).

        Raises:
            ServiceError: the archive does not answer, or what it sends does not come here; the text holds nothing of the patient.
        """
        if PATTERN.search(patient_id):
            raise ServiceError(f"archive {self.name}: C-FIND would take this Patient ID for a pattern")
        keys = {"PatientID": patient_id, "StudyDate": f"-{until}", "ModalitiesInStudy": "SR", "StudyInstanceUID": ""}
        studies = self._find("STUDY", **keys)
        studies.sort(key=lambda found: (found["StudyDate"], found["StudyInstanceUID"]), reverse=True)
        return [report for study in studies[:NEWEST] for report in self._of_study(study["StudyInstanceUID"])]

    def _of_study(self, study: str) -> Iterator[Dataset]:
        if not UID.fullmatch(study):
            return
        keys = {"StudyInstanceUID": study, "Modality": "SR", "SeriesInstanceUID": "", "SeriesDescription": ""}
        for found in self._find("SERIES", **keys):
            series = found["SeriesInstanceUID"]
            if found["Modality"] == "SR" and found["SeriesDescription"].startswith(RESULTS) and UID.fullmatch(series):
                yield from self._of_series(study, series)

    def _of_series(self, study: str, series: str) -> Iterator[Dataset]:
        found = self._find("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID="")
        wanted = {one["SOPInstanceUID"] for one in found} - self._known
        if wanted - self._held(series).keys():
            self._retriever.move(study, series, stopped=self._is_over)
        for uid, path in self._arrived(series, wanted).items():
            try:
                if uid in wanted and path.stat().st_size <= LARGEST:
                    yield dcmread(path)
            except (InvalidDicomError, OSError, ValueError, NotImplementedError, EOFError):
                continue

    def _find(self, level: str, **keys: str) -> list[dict[str, str]]:
        if self._is_over():
            raise ServiceError(f"archive {self.name}: it takes too long")
        return self._retriever.find(level, self._is_over, **keys)

    def _is_over(self) -> bool:
        return time.monotonic() > self._until

    def _arrived(self, series: str, wanted: Collection[str]) -> dict[str, Path]:
        """Wait until the listener recorded what was sent to it."""
        until = min(time.monotonic() + self._timeout, self._until)
        while not (held := self._held(series)).keys() >= set(wanted):
            if time.monotonic() > until:
                raise ServiceError(f"archive {self.name}: a report that it says it sent did not come to this node's listener")
            time.sleep(POLL)
        return held
