"""Search for prior reports of a patient: those of this node, and those in the configured archives.

The search has a timeout of its own and ends before the job waits for the GPU. When an archive fails, only the comparison is lost.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError
from pydicom import dcmread
from pydicom.config import disable_value_validation

from alnnode import logs
from alnnode.errors import NotAnalysable, ServiceError
from alnnode.follow_up.choice import choose_prior, not_comparable, slice_thickness_mm, study_date
from alnnode.imaging import part10
from alnnode.priors.dicom_archive import DicomArchive
from alnnode.priors.dicomweb_archive import DicomwebArchive
from alnnode.priors.prior_store import Patient, PriorStore, patient_of
from alnnode.records import ObjectRole
from alnnode.records.comparison import PriorLookup, PriorReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date
    from pathlib import Path

    from pydicom import Dataset

    from alnnode.records import ResultObject
    from alnnode.settings import Archive as ArchiveSettings
    from alnnode.settings import Settings

TAGS = ["PatientID", "IssuerOfPatientID", "PatientBirthDate", "StudyDate", "StudyInstanceUID", "SliceThickness"]

log = structlog.get_logger()


def image_header(path: Path) -> Dataset | None:
    """Return the patient and study attributes of an image (`TAGS`), without malformed ones; None when the file cannot be read.

    The analysis reports an unreadable file, so this does not.
    """
    try:
        with disable_value_validation():
            return part10.header_of(part10.read(path, pixels=False, tags=TAGS))[0]
    except NotAnalysable:
        return None


def no_files(_series: str) -> dict[str, Path]:
    """Return no files: the node stores no object of the series."""
    return {}


def find_prior(
    settings: Settings, spool: Path, header: Dataset | None, stored_files: Callable[[str], dict[str, Path]] = no_files
) -> PriorLookup | None:
    """Return the prior report that a series with this header is compared with; None when ``[report] follow_up`` is "off".

    All archives are queried at the same time, and share ``[report] prior_timeout``.

    Args:
        settings: all settings.
        spool: folder of the node's spool, which holds the records of its own reports.
        header: of one image of the series; None when it could not be read. Without Patient ID or Study Date nothing is searched, and the
            result says so.
        stored_files: returns the files that the node stores of a series, by SOP Instance UID. A DICOM archive moves the objects to the
            listener of the node, and this function finds them there.
    """
    if settings.report.follow_up == "off":
        return None
    patient, today = (None, None) if header is None else (patient_of(header), study_date(header))
    if header is None or patient is None or today is None:
        return PriorLookup(trouble=not_comparable(header))
    try:
        known = [prior for data in PriorStore(spool).recall(patient) if (prior := _parse(data)) is not None]
        trouble = None
    except OSError as error:
        log.warning("earlier_reports_not_read", error=type(error).__name__, errno=error.errno)
        known, trouble = [], "the reports that this node keeps could not be read"
    if settings.report.follow_up == "archives":
        query = _Query(patient, today, stored_files, frozenset(prior.sop_instance_uid for prior in known))
        queries = [_ArchiveQuery(archive, settings, query) for archive in settings.archives]
        for thread in queries:
            thread.start()
        for thread in queries:
            found, problem = thread.result()
            known += found
            trouble = problem or trouble
    prior = choose_prior(known, str(header.get("StudyInstanceUID", "")), today, slice_thickness_mm(header))
    return PriorLookup(prior, trouble)


@dataclass(frozen=True, slots=True)
class _Query:
    """What each archive is queried for.

    Attributes:
        patient: whose reports.
        today: Study Date of the series; only earlier studies count.
        stored_files: as in `find_prior`.
        known: SOP Instance UIDs of the reports that need not be retrieved.
    """

    patient: Patient
    today: date
    stored_files: Callable[[str], dict[str, Path]]
    known: frozenset[str]


class _ArchiveQuery(threading.Thread):
    """A query to one archive, in a thread of its own, so that the caller waits no longer than ``[report] prior_timeout``."""

    def __init__(self, archive: ArchiveSettings, settings: Settings, query: _Query) -> None:
        super().__init__(name=f"archive {archive.name}", daemon=True)
        self._until = time.monotonic() + settings.report.prior_timeout
        # No single timeout exceeds the total, so that the thread ends soon after the caller has stopped to wait.
        self._archive = archive.model_copy(update={"timeout": min(archive.timeout, settings.report.prior_timeout)})
        self._ae_title, self._query = settings.node.ae_title, query
        self._found: list[PriorReport] | None = None

    def run(self) -> None:
        """Query the archive."""
        try:
            self._found = self._retrieve()
        except ServiceError as error:
            log.warning("archive_not_asked", archive=self._archive.name, error=str(error))
        except Exception as error:  # noqa: BLE001 - an error caused by a foreign archive must not end the analysis
            log.warning("archive_not_asked", archive=self._archive.name, error=type(error).__name__, where=logs.where(error))

    def result(self) -> tuple[list[PriorReport], str | None]:
        """Return the reports, and why some may be missing; waits until the time of the query has passed."""
        self.join(max(0.0, self._until - time.monotonic()))
        if self.is_alive():
            log.warning("archive_not_asked", archive=self._archive.name, error="it did not answer in time")
            return [], f"archive {self._archive.name} did not answer in time"
        return (self._found, None) if self._found is not None else ([], f"archive {self._archive.name} could not be asked")

    def _retrieve(self) -> list[PriorReport]:
        from alnnode.report.sr import prior_record  # noqa: PLC0415 - highdicom is slow to import, and only this needs it

        query = self._query
        archive = (
            DicomwebArchive(self._archive, until=self._until)
            if self._archive.kind == "dicomweb"
            else DicomArchive(self._archive, self._ae_title, query.stored_files, query.known, until=self._until)
        )
        found = archive.reports(query.patient.number, query.today.strftime("%Y%m%d"))
        return [prior for one in found if patient_of(one) == query.patient and (prior := prior_record.read(one)) is not None]


def store_comparison_record(settings: Settings, spool: Path, header: Dataset | None, objects: Sequence[ResultObject]) -> None:
    """Store what later comparisons need of a report. When the disk refuses it, only later comparisons are lost, not the job."""
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


def _parse(data: bytes) -> PriorReport | None:
    """Return a stored report; None when another version of alnnode wrote it."""
    try:
        return PriorReport.model_validate_json(data)
    except ValidationError:
        return None
