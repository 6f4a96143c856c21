"""List the image series in a folder of DICOM files, by UID, from headers only."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from pydicom.config import disable_value_validation

from alnnode.errors import NotAnalysable
from alnnode.imaging import part10
from alnnode.imaging.attribute_values import BAD_VALUE, text
from alnnode.imaging.frames import CT_STORAGE, read_frames
from alnnode.imaging.series import files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pydicom import Dataset

TAGS: Final = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Modality", "Rows", "Columns",
    "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """One instance of a series.

    Attributes:
        heights: position of each frame along its normal towards the head, mm, by frame number (None in a single-frame image); empty if the
            header has no position.
    """

    path: Path
    rows: int
    columns: int
    frames: int
    heights: dict[int | None, float]


@dataclass(frozen=True)
class ImageSeries:
    """One series of images of any modality.

    Attributes:
        images: SOP Instance UID to instance.
    """

    series_uid: str
    study_uid: str
    patient_id: str
    modality: str
    is_ct: bool
    images: dict[str, ImageHeader] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        """The files of its images."""
        return [image.path for image in self.images.values()]

    @cached_property
    def _ranks(self) -> dict[tuple[str, int | None], int]:
        """Rank of each slice from the feet, by SOP Instance UID and frame."""
        # Frame numbers cannot be used, because some scanners store slices from the head down.
        placed = [(height, uid, frame) for uid, image in self.images.items() for frame, height in image.heights.items()]
        return {(uid, frame): rank for rank, (_, uid, frame) in enumerate(sorted(placed, key=lambda one: one[:2]))}

    def slice_of(self, sop_uid: str, frame: int | None) -> int | None:
        """Return the rank of a slice from the feet; None if the header has no position."""
        return self._ranks.get((sop_uid, frame))

    def height_of(self, sop_uid: str, frame: int | None) -> float | None:
        """Return the position of a slice towards the head in mm; None if the header has no position."""
        image = self.images.get(sop_uid)
        return image.heights.get(frame) if image else None


@dataclass(frozen=True)
class DicomFolder:
    """The DICOM files below a folder.

    Attributes:
        series: image series by Series Instance UID.
        others: files of other objects (reports, segmentations, structure sets) by SOP Class UID.
        unread: number of files that cannot be read as DICOM.
    """

    root: Path
    series: dict[str, ImageSeries]
    others: dict[str, list[Path]]
    unread: int

    @cached_property
    def by_image(self) -> dict[str, ImageSeries]:
        """The series of each image, by SOP Instance UID."""
        return {uid: series for series in self.series.values() for uid in series.images}


def read_folder(root: Path, progress: Callable[[], None] | None = None) -> DicomFolder:
    """Read the headers of all files below a folder; ``progress`` is called before each file."""
    series: dict[str, ImageSeries] = {}
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
                ImageSeries(
                    uid,
                    text(header, "StudyInstanceUID"),
                    text(header, "PatientID"),
                    text(header, "Modality"),
                    kind in CT_STORAGE,
                ),
            )
            rows, columns, frames = _raster(header)
            known.images[sop] = ImageHeader(path, rows, columns, frames, _heights(header, path, frames))
    return DicomFolder(root, series, others, unread)


def _raster(header: Dataset) -> tuple[int, int, int]:
    try:
        return int(header.Rows), int(header.Columns), int(header.get("NumberOfFrames") or 1)
    except BAD_VALUE:
        return 0, 0, 1


def _heights(header: Dataset, path: Path, frames: int) -> dict[int | None, float]:
    try:
        if frames == 1 and "ImagePositionPatient" in header:
            return {None: _height(header.ImageOrientationPatient, header.ImagePositionPatient)}
        if text(header, "SOPClassUID") not in CT_STORAGE:
            return {}
        # The functional groups are read for CT only, because those of a large segmentation take seconds to read.
        described, _ = read_frames(part10.read(path, pixels=False), path)
        return {frame.number if frames > 1 else None: _height(frame.orientation, frame.position) for frame in described}
    except (NotAnalysable, *BAD_VALUE):
        return {}


def _height(orientation: Sequence[float], position: Sequence[float]) -> float:
    cosines = np.array(orientation, float)
    normal = np.cross(cosines[:3], cosines[3:])
    return float(np.array(position, float) @ (normal if normal[2] >= 0 else -normal))
