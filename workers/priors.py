"""Earlier reports of a job's patient: those that this node made, and where the site asks for it those in its archives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError
from pydicom import dcmread
from pydicom.config import disable_value_validation

from alnnode.comparison import Earlier, Prior, choose, study_date, thickness
from alnnode.errors import NotAnalysable, ServiceError
from alnnode.imaging import part10
from alnnode.records import ObjectRole
from alnnode.send.archive import Archive
from alnnode.send.earlier import DicomArchive
from alnnode.store.memory import Memory, patient_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pydicom import Dataset

    from alnnode.records import ResultObject
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
    An archive that does not answer costs the comparison, never the analysis.

    Raises:
        OSError: the spool cannot be read.
    """
    if settings.report.follow_up == "off":
        return None
    patient, today = (None, None) if header is None else (patient_of(header), study_date(header))
    if header is None or patient is None or today is None:
        return Earlier()
    known = [prior for data in Memory(spool).recall(patient) if (prior := _kept(data)) is not None]
    trouble = None
    if settings.report.follow_up == "archives":
        from alnnode.report import record  # noqa: PLC0415 - highdicom is slow to import, and only this needs it

        for archive in settings.archives:
            try:
                asked = (
                    Archive(archive)
                    if archive.kind == "dicomweb"
                    else DicomArchive(archive, settings.node.ae_title, held, {prior.sop_instance_uid for prior in known})
                )
                found = asked.reports(patient.number, today.strftime("%Y%m%d"))
            except ServiceError as error:
                log.warning("archive_not_asked", archive=archive.name, error=str(error))
                trouble = f"archive {archive.name} could not be asked"
                continue
            known += [prior for one in found if patient_of(one) == patient and (prior := record.read(one)) is not None]
    prior = choose(known, str(header.get("StudyInstanceUID", "")), today, thickness(header))
    return Earlier(prior, None if prior is not None else trouble)


def remember(settings: Settings, spool: Path, header: Dataset | None, objects: Sequence[ResultObject]) -> None:
    """Keep what later comparisons need of a report. A disk that refuses costs the comparison, not the job."""
    patient = None if header is None else patient_of(header)
    if settings.report.follow_up == "off" or patient is None or not settings.retention.follow_up_days:
        return
    from io import BytesIO  # noqa: PLC0415

    from alnnode.report import record  # noqa: PLC0415

    for item in objects:
        prior = record.read(dcmread(BytesIO(item.data))) if item.role is ObjectRole.SR else None
        if prior is not None:
            try:
                Memory(spool).remember(patient, prior.sop_instance_uid, prior.model_dump_json().encode())
            except OSError as error:
                log.warning("report_not_remembered", error=type(error).__name__, errno=error.errno)


def _kept(data: bytes) -> Prior | None:
    try:
        return Prior.model_validate_json(data)
    except ValidationError:  # of another version
        return None
