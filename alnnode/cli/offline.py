"""``alnnode analyse``: a folder of DICOM in, report and captures out. No network, no database."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from PIL import Image
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from alnnode import follow_up, pipeline, report
from alnnode.errors import NotAnalysable
from alnnode.imaging.series import candidate_series
from alnnode.locate import marks
from alnnode.priors.prior_store import patient_of
from alnnode.records import Locate, ObjectRole, ReportContext
from alnnode.records.comparison import Earlier, choose, study_date, thickness
from alnnode.report.result_json import as_dict
from alnnode.report.sr import prior_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from pydicom import Dataset

    from alnnode.locate.detector import Detector
    from alnnode.model.ensemble import Ensemble
    from alnnode.records import Analysis, MarkObject, ResultObject
    from alnnode.settings import Settings

# Used only when a series carries no date at all, so that its result bytes still repeat.
DATELESS = datetime(1900, 1, 1)  # noqa: DTZ001 - DICOM DA/TM without offset
DATES = (
    ("AcquisitionDate", "AcquisitionTime"),
    ("ContentDate", "ContentTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one series.

    ``folder`` is None when nothing was written: then ``reason`` says why.
    """

    series_uid: str
    images: int
    nodes: int
    suspicious: int
    reason: str | None
    folder: Path | None


def analyse_folder(
    folder: Path,
    out: Path,
    settings: Settings,
    ensemble: Ensemble,
    detector: Detector,
    progress: pipeline.Progress,
    reports: Sequence[Path] = (),
) -> Iterator[Outcome]:
    """Analyse every CT series below ``folder``.

    One series writes into ``out`` itself, several into ``out/series-01``, ``series-02`` …: ``sr.dcm``, ``capture-NN.dcm``
    with a PNG of each page, what else the settings ask for (``seg.dcm``, ``pmap-NN.dcm`` …), and ``result.json``.

    ``reports`` are earlier reports of alnnode; of the same patient's, the one before the study is compared with.

    Yields:
        One outcome per series, in the order of their UIDs.

    Raises:
        NotAnalysable: the folder holds no CT series at all.
    """
    series = {uid: paths for uid, paths in sorted(candidate_series(folder).items()) if _modality(paths[0]) == "CT"}
    if not series:
        raise NotAnalysable(f"no CT series in {folder}; point the command at a folder with the DICOM files of a CT series")
    marked = _marks(folder, settings)
    for number, (uid, paths) in enumerate(series.items(), start=1):
        target = out if len(series) == 1 else out / f"series-{number:02d}"
        try:
            analysis = pipeline.analyse(paths, ensemble, detector, settings.analysis, progress, _of(uid, marked))
        except NotAnalysable as error:
            yield Outcome(uid, len(paths), 0, 0, str(error), None)
            continue
        context = offline_context(paths, settings, reports, _of(uid, marked))
        if context.earlier is not None:
            progress("compare")
            analysis = follow_up.follow(analysis, context.earlier)
        progress("report")
        _write(analysis, report.build(analysis, context), target)
        suspicious = sum(finding.suspicious(analysis.model.operating_point) for finding in analysis.findings)
        yield Outcome(uid, len(paths), len(analysis.findings), suspicious, analysis.not_analysed, target)


def _marks(folder: Path, settings: Settings) -> list[MarkObject]:
    """Return the marks below a folder, in the order of their UIDs; results that this software left there are none."""
    if settings.analysis.locate is Locate.AUTO:
        return []
    found = [item for item in marks.read_folder(folder) if item.marks and not item.own]
    return sorted({item.sop_instance_uid: item for item in found}.values(), key=lambda item: item.sop_instance_uid)


def _of(series_uid: str, marked: Sequence[MarkObject]) -> list[MarkObject]:
    """Return the marks that are of a series, or may be by their frame of reference."""
    return [
        item
        for item in marked
        if any(mark.frames_of_reference or not mark.series_uids or series_uid in mark.series_uids for mark in item.marks)
    ]


def offline_context(
    paths: Sequence[Path], settings: Settings, reports: Sequence[Path] = (), marked: Sequence[MarkObject] = ()
) -> ReportContext:
    """Return the context of an analysis outside any job: its moment is the newest acquisition of the source."""
    digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    # An object's UID stands for its content (PS3.5 section 9).
    digests += [item.sop_instance_uid for item in marked]
    earlier = None if settings.report.follow_up == "off" else _earlier(paths[0], reports)
    own = hashlib.sha256("".join(digests).encode()).hexdigest()
    return ReportContext(
        input_digest=own if earlier is None else earlier.joined(own),
        settings_digest=settings.result_digest,
        created=max((moment for moment in map(_moment, paths) if moment), default=DATELESS),
        station=settings.node.ae_title,
        window=settings.analysis.window,
        options=settings.report.options,
        earlier=earlier,
        zone=settings.node.zone,
    )


def _earlier(image: Path, reports: Sequence[Path]) -> Earlier:
    """Return the report to compare with, of those given: the patient's newest before this study."""
    header = _header(
        image, ["PatientID", "IssuerOfPatientID", "PatientBirthDate", "StudyDate", "StudyInstanceUID", "SliceThickness"]
    )
    today = None if header is None else study_date(header)
    if header is None or today is None or patient_of(header) is None:
        return Earlier()
    found = [one for path in reports if (one := _header(path)) is not None and patient_of(one) == patient_of(header)]
    known = [prior for one in found if (prior := prior_record.read(one)) is not None]
    return Earlier(choose(known, str(header.get("StudyInstanceUID", "")), today, thickness(header)))


def _write(analysis: Analysis, objects: Sequence[ResultObject], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for role in ObjectRole:
        for stale in (*target.glob(f"{role.value}*.dcm"), *target.glob(f"{role.value}*.png")):
            stale.unlink()
    for role in ObjectRole:
        mine = [item for item in objects if item.role is role]
        for number, item in enumerate(mine, start=1):
            name = f"{role.value}-{number:02d}" if role is ObjectRole.CAPTURE or len(mine) > 1 else role.value
            (target / f"{name}.dcm").write_bytes(item.data)
        if role is ObjectRole.CAPTURE:
            pages = [page for item in mine for page in _pages(item)]
            for number, page in enumerate(pages, start=1):
                Image.fromarray(page).save(target / f"{role.value}-{number:02d}.png")
    (target / "result.json").write_text(json.dumps(as_dict(analysis), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _pages(item: ResultObject) -> list[npt.NDArray[np.uint8]]:
    """Return the pictures of a capture: one, or one per frame."""
    pixels = dcmread(io.BytesIO(item.data)).pixel_array
    return list(pixels) if pixels.ndim == 4 else [pixels]


def _header(path: Path, tags: Sequence[str] | None = None) -> Dataset | None:
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=None if tags is None else list(tags))
    except (InvalidDicomError, OSError, ValueError, NotImplementedError):
        return None


def _modality(path: Path) -> str:
    header = _header(path, ["Modality"])
    return "" if header is None else str(header.get("Modality", ""))


def _moment(path: Path) -> datetime | None:
    header = _header(path, [tag for pair in DATES for tag in pair])
    if header is None:
        return None
    for date, time in DATES:
        day, clock = str(header.get(date) or ""), str(header.get(time) or "").split(".")[0]
        for text, form in ((day + clock, "%Y%m%d%H%M%S"), (day, "%Y%m%d")):
            try:
                return datetime.strptime(text, form)  # noqa: DTZ007 - DICOM DA/TM without offset
            except ValueError:
                continue
    return None
