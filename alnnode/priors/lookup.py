"""Earlier reports of a job's patient: those that this node made, and where the site asks for it those in its archives.

Looked for before the device is taken, in a time of its own, and at no cost to the analysis: whatever an archive does, or does not do, it can
only cost the comparison.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError
from pydicom import dcmread
from pydicom.config import disable_value_validation

from alnnode import logs
from alnnode.errors import NotAnalysable, ServiceError
from alnnode.imaging import part10
from alnnode.priors.dicom_archive import DicomArchive
from alnnode.priors.dicomweb_archive import DicomwebArchive
from alnnode.priors.prior_store import Patient, PriorStore, patient_of
from alnnode.records import ObjectRole
from alnnode.records.comparison import Earlier, Prior, choose, study_date, thickness

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import date
    from pathlib import Path

    from pydicom import Dataset

    from alnnode.records import ResultObject
    from alnnode.settings import Archive as ArchiveSettings
    from alnnode.settings import Settings

TAGS = ["PatientID", "IssuerOfPatientID", "PatientBirthDate", "StudyDate", "StudyInstanceUID", "SliceThickness"]

log = structlog.get_logger()


def header_of(path: Path) -> Dataset | None:
    """Read who and when an image is of; None when it cannot be read: the analysis will say so. What cannot be used of it is absent."""
    try:
        with disable_value_validation():
            return part10.header_of(part10.read(path, pixels=False, tags=TAGS))[0]
    except NotAnalysable:
        return None


def nothing(_series: str) -> dict[str, Path]:
    """Say that the node holds no object of a series."""
    return {}


def find(
    settings: Settings, spool: Path, header: Dataset | None, held: Callable[[str], dict[str, Path]] = nothing
) -> Earlier | None:
    """Return what a series with this header is compared with; None when the site follows nothing up.

    ``held`` tells the files that the node holds of a series, by SOP Instance UID: what an archive moves here comes through its listener.
    All archives are asked at once, and have ``[report] prior_timeout`` together.
    """
    if settings.report.follow_up == "off":
        return None
    patient, today = (None, None) if header is None else (patient_of(header), study_date(header))
    if header is None or patient is None or today is None:
        return Earlier()
    try:
        known = [prior for data in PriorStore(spool).recall(patient) if (prior := _kept(data)) is not None]
        trouble = None
    except OSError as error:
        log.warning("earlier_reports_not_read", error=type(error).__name__, errno=error.errno)
        known, trouble = [], "the reports that this node keeps could not be read"
    if settings.report.follow_up == "archives":
        have = {prior.sop_instance_uid for prior in known}
        inquiries = [_Inquiry(archive, settings, patient, today, held, have) for archive in settings.archives]
        for inquiry in inquiries:
            inquiry.start()
        for inquiry in inquiries:
            found, problem = inquiry.answer()
            known += found
            trouble = problem or trouble
    prior = choose(known, str(header.get("StudyInstanceUID", "")), today, thickness(header))
    return Earlier(prior, None if prior is not None else trouble)


class _Inquiry(threading.Thread):
    """One question to one archive, in a thread that nobody waits for longer than the site says."""

    def __init__(
        self,
        archive: ArchiveSettings,
        settings: Settings,
        patient: Patient,
        today: date,
        held: Callable[[str], dict[str, Path]],
        known: Collection[str],
    ) -> None:
        super().__init__(name=f"archive {archive.name}", daemon=True)
        self._until = time.monotonic() + settings.report.prior_timeout
        # No single wait is longer than all together, so that the thread ends soon after nobody listens.
        self._archive = archive.model_copy(update={"timeout": min(archive.timeout, settings.report.prior_timeout)})
        self._ae_title, self._held, self._known = settings.node.ae_title, held, frozenset(known)
        self._patient, self._today = patient, today
        self._found: list[Prior] | None = None

    def run(self) -> None:
        """Ask."""
        try:
            self._found = self._ask()
        except ServiceError as error:
            log.warning("archive_not_asked", archive=self._archive.name, error=str(error))
        except Exception as error:  # noqa: BLE001 - what a stranger's archive brings about must not end an analysis
            log.warning("archive_not_asked", archive=self._archive.name, error=type(error).__name__, where=logs.where(error))

    def answer(self) -> tuple[list[Prior], str | None]:
        """Return what was found, and why something may be missing; wait for it as long as there is time."""
        self.join(max(0.0, self._until - time.monotonic()))
        if self.is_alive():
            log.warning("archive_not_asked", archive=self._archive.name, error="it did not answer in time")
            return [], f"archive {self._archive.name} did not answer in time"
        return (self._found, None) if self._found is not None else ([], f"archive {self._archive.name} could not be asked")

    def _ask(self) -> list[Prior]:
        from alnnode.report.sr import prior_record  # noqa: PLC0415 - highdicom is slow to import, and only this needs it

        asked = (
            DicomwebArchive(self._archive, until=self._until)
            if self._archive.kind == "dicomweb"
            else DicomArchive(self._archive, self._ae_title, self._held, self._known, until=self._until)
        )
        found = asked.reports(self._patient.number, self._today.strftime("%Y%m%d"))
        return [prior for one in found if patient_of(one) == self._patient and (prior := prior_record.read(one)) is not None]


def remember(settings: Settings, spool: Path, header: Dataset | None, objects: Sequence[ResultObject]) -> None:
    """Keep what later comparisons need of a report. A disk that refuses costs the comparison, not the job."""
    patient = None if header is None else patient_of(header)
    if settings.report.follow_up == "off" or patient is None or not settings.retention.follow_up_days:
        return
    from io import BytesIO  # noqa: PLC0415

    from alnnode.report.sr import prior_record  # noqa: PLC0415

    for item in objects:
        prior = prior_record.read(dcmread(BytesIO(item.data))) if item.role is ObjectRole.SR else None
        if prior is not None:
            try:
                PriorStore(spool).store(patient, prior.sop_instance_uid, prior.model_dump_json().encode())
            except OSError as error:
                log.warning("report_not_remembered", error=type(error).__name__, errno=error.errno)


def _kept(data: bytes) -> Prior | None:
    try:
        return Prior.model_validate_json(data)
    except ValidationError:  # of another version
        return None
