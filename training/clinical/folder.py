"""What a folder of DICOM holds: the series of images, by UID, from headers only."""

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
class Image:
    """One instance of a series.

    Attributes:
        heights: of each frame (1-based; None in a single-frame image) along its normal towards the head, mm; none where the header does not say.
    """

    path: Path
    rows: int
    columns: int
    frames: int
    heights: dict[int | None, float]


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
    def _ranks(self) -> dict[tuple[str, int | None], int]:
        """SOP Instance UID and frame to the place of the slice from the feet."""
        # Not by frame number: scanners also store from the head down.
        placed = [(height, uid, frame) for uid, image in self.images.items() for frame, height in image.heights.items()]
        return {(uid, frame): rank for rank, (_, uid, frame) in enumerate(sorted(placed, key=lambda one: one[:2]))}

    def slice_of(self, sop_uid: str, frame: int | None) -> int | None:
        """Return a number that is one more for the next slice towards the head; None where the header does not tell."""
        return self._ranks.get((sop_uid, frame))

    def height_of(self, sop_uid: str, frame: int | None) -> float | None:
        """Return how high a slice lies, mm; None where the header does not tell."""
        image = self.images.get(sop_uid)
        return image.heights.get(frame) if image else None


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
            rows, columns, frames = _raster(header)
            known.images[sop] = Image(path, rows, columns, frames, _heights(header, path, frames))
    return Folder(root, series, others, unread)


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
        # Only now: the groups of a long segmentation take seconds to read.
        described, _ = read_frames(part10.read(path, pixels=False), path)
        return {frame.number if frames > 1 else None: _height(frame.orientation, frame.position) for frame in described}
    except (NotAnalysable, *BAD_VALUE):
        return {}


def _height(orientation: Sequence[float], position: Sequence[float]) -> float:
    cosines = np.array(orientation, float)
    normal = np.cross(cosines[:3], cosines[3:])
    return float(np.array(position, float) @ (normal if normal[2] >= 0 else -normal))
