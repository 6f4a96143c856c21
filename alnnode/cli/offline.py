"""``alnnode analyse``: analyses a folder of DICOM files and writes report and captures. It needs neither network nor database."""

from __future__ import annotations

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from PIL import Image
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from alnnode import pipeline, report
from alnnode.errors import NotAnalysable
from alnnode.follow_up.choice import choose_prior, not_comparable, slice_thickness_mm, study_date
from alnnode.imaging.series import candidate_series
from alnnode.locate.marks.reading import read_marks_in_folder
from alnnode.priors.prior_store import patient_of
from alnnode.records import Locate, ObjectRole, ReportContext
from alnnode.records.comparison import PriorLookup
from alnnode.report.result_json import as_dict
from alnnode.report.sr import prior_record
from alnnode.report.times import date_and_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from pydicom import Dataset

    from alnnode.records import Analysis, MarkObject, ResultObject
    from alnnode.settings import Settings

# Used when a series has no date, so that its results are still reproducible.
DATELESS = datetime(1900, 1, 1)  # noqa: DTZ001 - DICOM DA/TM without offset
DATES = (
    ("AcquisitionDate", "AcquisitionTime"),
    ("ContentDate", "ContentTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)
NONE_EARLIER = "none of the given files is a report of alnnode on an earlier study of this patient"


@dataclass(frozen=True, slots=True)
class SeriesOutcome:
    """Result of the analysis of one series, for the console.

    Attributes:
        reason: why the series was not analysed; None when it was.
        folder: where its results were written; None when none were written.
    """

    series_uid: str
    images: int
    nodes: int
    suspicious: int
    reason: str | None
    folder: Path | None


@dataclass(frozen=True, slots=True)
class OfflineAnalysis:
    """Analysis of folders without a node.

    Attributes:
        settings: all settings; the sections on the network and the database are not used.
        models: detector and ensemble.
        progress: called with the name of each step.
        prior_reports: reports of alnnode; a series is compared with the report of the same patient that precedes its study.
    """

    settings: Settings
    models: pipeline.Models
    progress: pipeline.Progress
    prior_reports: Sequence[Path] = ()

    def analyse_folder(self, folder: Path, out: Path) -> Iterator[SeriesOutcome]:
        """Analyse every CT series below ``folder``.

        One series writes into ``out`` itself, several into ``out/series-01``, ``series-02`` …: ``sr.dcm``, ``capture-NN.dcm`` with a
        PNG of each page, the further objects of the settings (``seg.dcm``, ``pmap-NN.dcm`` …), and ``result.json``.

        Yields:
            One outcome per series, in the order of their UIDs.

        Raises:
            NotAnalysable: the folder holds no CT series.
        """
        series = {uid: paths for uid, paths in sorted(candidate_series(folder).items()) if _modality(paths[0]) == "CT"}
        if not series:
            raise NotAnalysable(f"no CT series in {folder}; point the command at a folder with the DICOM files of a CT series")
        marks = _marks(folder, self.settings)
        for number, (uid, paths) in enumerate(series.items(), start=1):
            target = out if len(series) == 1 else out / f"series-{number:02d}"
            yield self._analyse_series(uid, paths, _marks_of_series(uid, marks), target)

    def _analyse_series(self, uid: str, paths: Sequence[Path], marks: Sequence[MarkObject], target: Path) -> SeriesOutcome:
        try:
            context = offline_context(paths, self.settings, self.prior_reports, marks, self.models.arithmetic)
            source = pipeline.SeriesInput(paths, marks, context.prior)
            analysis = pipeline.analyse(source, self.models, self.settings.analysis, self.progress)
        except NotAnalysable as error:
            return SeriesOutcome(uid, len(paths), 0, 0, str(error), None)
        self.progress("report")
        _write(analysis, report.build(analysis, context), target)
        suspicious = sum(finding.suspicious(analysis.model.operating_point) for finding in analysis.findings)
        return SeriesOutcome(uid, len(paths), len(analysis.findings), suspicious, analysis.not_analysed, target)


def _marks(folder: Path, settings: Settings) -> list[MarkObject]:
    """Return the marks below a folder, in the order of their UIDs, without results of this software."""
    if settings.analysis.locate is Locate.AUTO:
        return []
    found = [item for item in read_marks_in_folder(folder) if item.marks and not item.own]
    return sorted({item.sop_instance_uid: item for item in found}.values(), key=lambda item: item.sop_instance_uid)


def _marks_of_series(series_uid: str, marked: Sequence[MarkObject]) -> list[MarkObject]:
    """Return the marks that refer to a series, or that may refer to it by their frame of reference."""
    return [
        item
        for item in marked
        if any(mark.frames_of_reference or not mark.series_uids or series_uid in mark.series_uids for mark in item.marks)
    ]


def offline_context(
    paths: Sequence[Path],
    settings: Settings,
    prior_reports: Sequence[Path] = (),
    marked: Sequence[MarkObject] = (),
    arithmetic: str = "",
) -> ReportContext:
    """Return the context of an analysis without a job. Its date and time are those of the newest acquisition of the source.

    ``arithmetic`` is that of the device (`pipeline.Models.arithmetic`): another device writes series of its own, as at a node.
    """
    # hashlib releases the GIL: the files are hashed while this thread reads their dates.
    with ThreadPoolExecutor(1) as thread:
        hashed = thread.map(_sha256, paths)
        created = max((moment for moment in map(_moment, paths) if moment), default=DATELESS)
        digests = sorted(hashed)
    # The UID of an object identifies its content (PS3.5 section 9).
    digests += [item.sop_instance_uid for item in marked]
    prior = None if settings.report.follow_up == "off" else _find_prior(paths[0], prior_reports)
    input_digest = hashlib.sha256("".join([*digests, arithmetic]).encode()).hexdigest()
    return ReportContext(
        input_digest=input_digest if prior is None else prior.digest_with(input_digest),
        settings_digest=settings.result_digest,
        created=created,
        station=settings.node.ae_title,
        window=settings.analysis.window,
        options=settings.report.options,
        prior=prior,
        zone=settings.node.zone,
    )


def _find_prior(image: Path, reports: Sequence[Path]) -> PriorLookup:
    """Return the report to compare with, of the given reports: the newest of the patient before this study."""
    header = _header(
        image, ["PatientID", "IssuerOfPatientID", "PatientBirthDate", "StudyDate", "StudyInstanceUID", "SliceThickness"]
    )
    today = None if header is None else study_date(header)
    if header is None or today is None or patient_of(header) is None:
        return PriorLookup(trouble=not_comparable(header) if reports else None)
    found = [one for path in reports if (one := _header(path)) is not None and patient_of(one) == patient_of(header)]
    known = [prior for one in found if (prior := prior_record.read(one)) is not None]
    chosen = choose_prior(known, str(header.get("StudyInstanceUID", "")), today, slice_thickness_mm(header))
    return PriorLookup(chosen, NONE_EARLIER if chosen is None and reports else None)


def _write(analysis: Analysis, objects: Sequence[ResultObject], target: Path) -> None:
    """Write the result objects, and ``result.json``; results of an earlier run are deleted first."""
    target.mkdir(parents=True, exist_ok=True)
    for role in ObjectRole:
        for stale in (*target.glob(f"{role.value}*.dcm"), *target.glob(f"{role.value}*.png")):
            stale.unlink()
    for role in ObjectRole:
        of_role = [item for item in objects if item.role is role]
        for number, item in enumerate(of_role, start=1):
            name = f"{role.value}-{number:02d}" if role is ObjectRole.CAPTURE or len(of_role) > 1 else role.value
            (target / f"{name}.dcm").write_bytes(item.data)
        if role is ObjectRole.CAPTURE:
            pages = [page for item in of_role for page in _pages(item)]
            for number, page in enumerate(pages, start=1):
                Image.fromarray(page).save(target / f"{role.value}-{number:02d}.png")
    (target / "result.json").write_text(json.dumps(as_dict(analysis), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _pages(item: ResultObject) -> list[npt.NDArray[np.uint8]]:
    """Return the pages of a capture: one, or one per frame."""
    pixels = dcmread(io.BytesIO(item.data)).pixel_array
    return list(pixels) if pixels.ndim == 4 else [pixels]


def _header(path: Path, tags: Sequence[str] | None = None) -> Dataset | None:
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=None if tags is None else list(tags))
    except (InvalidDicomError, OSError, ValueError, NotImplementedError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _modality(path: Path) -> str:
    header = _header(path, ["Modality"])
    return "" if header is None else str(header.get("Modality", ""))


def _moment(path: Path) -> datetime | None:
    header = _header(path, [tag for pair in DATES for tag in pair])
    if header is None:
        return None
    for date, time in DATES:
        day = str(header.get(date) or "")
        moment = date_and_time(day, str(header.get(time) or "")) or date_and_time(day, "")
        if moment is not None:
            return moment
    return None
