"""What a folder of DICOM holds: the series of images, by UID, from headers only."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from pydicom.config import disable_value_validation

from alnnode.errors import NotAnalysable
from alnnode.imaging import part10
from alnnode.imaging.frames import BAD_VALUE, CT_STORAGE, text
from alnnode.imaging.series import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset

TAGS: Final = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Modality", "Rows", "Columns",
    "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Image:
    """One instance of a series.

    Attributes:
        place: along the normal of the slice, mm; None where the header does not say (multi-frame).
    """

    path: Path
    rows: int
    columns: int
    frames: int
    place: float | None


@dataclass(frozen=True)
class Series:
    """One series of images.

    Attributes:
        images: SOP Instance UID to instance.
    """

    series_uid: str
    study_uid: str
    patient_id: str
    modality: str
    is_ct: bool
    images: dict[str, Image] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        """Its files."""
        return [image.path for image in self.images.values()]

    @cached_property
    def ranks(self) -> dict[str, int]:
        """SOP Instance UID to the place of its slice from the feet, for single-frame instances."""
        placed = sorted((image.place, uid) for uid, image in self.images.items() if image.place is not None)
        return {uid: rank for rank, (_, uid) in enumerate(placed)}

    def slice_of(self, sop_uid: str, frame: int | None) -> int | None:
        """Return a number that is one more for the next slice; None where the header does not tell."""
        return frame if frame is not None else self.ranks.get(sop_uid)


@dataclass(frozen=True)
class Folder:
    """What lies below a folder.

    Attributes:
        series: by Series Instance UID, images only.
        others: files of objects that are no images of a series (reports, segmentations, structure sets): SOP Class UID to paths.
        unread: how many files are no readable DICOM.
    """

    root: Path
    series: dict[str, Series]
    others: dict[str, list[Path]]
    unread: int

    @cached_property
    def by_image(self) -> dict[str, Series]:
        """SOP Instance UID to the series that it is in."""
        return {uid: series for series in self.series.values() for uid in series.images}


def read(root: Path, progress: Callable[[], None] | None = None) -> Folder:
    """Read the headers of everything below a folder."""
    series: dict[str, Series] = {}
    others: dict[str, list[Path]] = {}
    unread = 0
    with disable_value_validation():
        for path in files(root):
            if progress:
                progress()
            try:
                header = part10.read(path, pixels=False, tags=TAGS)
            except NotAnalysable:
                unread += 1
                continue
            uid, sop, kind = (text(header, name) for name in ("SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"))
            if not (uid and sop and text(header, "Rows")) or text(header, "Modality") in {"SEG", "SR", "RTSTRUCT", "PR", "KO"}:
                others.setdefault(kind, []).append(path)
                continue
            known = series.setdefault(
                uid,
                Series(
                    uid,
                    text(header, "StudyInstanceUID"),
                    text(header, "PatientID"),
                    text(header, "Modality"),
                    kind in CT_STORAGE,
                ),
            )
            known.images[sop] = Image(path, *_raster(header), _place(header))
    return Folder(root, series, others, unread)


def _raster(header: Dataset) -> tuple[int, int, int]:
    try:
        return int(header.Rows), int(header.Columns), int(header.get("NumberOfFrames") or 1)
    except BAD_VALUE:
        return 0, 0, 1


def _place(header: Dataset) -> float | None:
    try:
        cosines, position = np.array(header.ImageOrientationPatient, float), np.array(header.ImagePositionPatient, float)
        normal = np.cross(cosines[:3], cosines[3:])
        return float(position @ (normal if normal[2] >= 0 else -normal))
    except BAD_VALUE:
        return None
