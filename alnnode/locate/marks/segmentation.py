"""Marks in Segmentations: one for each segment, its frames as masks in patient coordinates (PS3.3 A.51, C.8.20)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from alnnode.counted import counted
from alnnode.imaging.attribute_values import BAD_VALUE, text
from alnnode.imaging.references import children, referenced_series
from alnnode.imaging.stored_image import DamagedImageError, NoSuchFrameError, open_image
from alnnode.locate.marks import items
from alnnode.records import Mark, MaskPlane

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from alnnode.imaging.stored_image import StoredImage

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
MAX_FRAMES = 5000
MAX_PIXELS = 1 << 31  # of all frames together
MAX_KEPT = 1 << 27  # pixels, and bytes of memory, of the cropped planes
MAX_SIDE = 4096


@dataclass(slots=True)
class _Frames:
    """The frames that were read, and why others were not."""

    planes: dict[int, list[MaskPlane]] = field(default_factory=dict)
    kept: int = 0
    damaged: int = 0
    reason: str = ""


def read_segmentation(dataset: Dataset, path: Path) -> tuple[list[Mark], list[str]]:
    """Return the marks of a segmentation, and remarks on what was left out."""
    uid, series, created = text(dataset, "SOPInstanceUID"), referenced_series(dataset), items.created(dataset)
    frames = _frames(dataset, path)
    marks = []
    remarks = [frames.reason] if frames.reason else []
    if frames.damaged:
        remarks.append(f"{counted(frames.damaged, 'frame')} left out: no geometry, or not decodable")
    for place, segment in enumerate(children(dataset, "SegmentSequence"), start=1):
        if place > items.MAX_MARKS:
            remarks.append(f"only the first {items.MAX_MARKS} segments were read")
            break
        number = items.integer(segment, "SegmentNumber") or place
        region = items.first(segment, "AnatomicRegionSequence")
        modifier = items.concept(region, "AnatomicRegionModifierSequence") if region is not None else None
        marks.append(
            Mark(
                source_uid=uid,
                number=number,
                series_uids=series,
                tracking_uid=items.uid(segment, "TrackingUID"),
                tracking_identifier=items.words(segment, "TrackingID"),
                planes=tuple(frames.planes.get(number, ())),
                label=items.words(segment, "SegmentLabel") or items.words(segment, "SegmentDescription"),
                finding=items.concept(segment, "SegmentedPropertyTypeCodeSequence"),
                site=items.concept(segment, "AnatomicRegionSequence"),
                side=items.laterality(modifier),
                created=created,
            )
        )
    return marks, remarks


def _frames(dataset: Dataset, path: Path) -> _Frames:
    found = _Frames()
    try:
        image = open_image(path)
        rows, columns = int(image.header.Rows), int(image.header.Columns)
    except (NoSuchFrameError, DamagedImageError, *BAD_VALUE):
        found.reason = "the segmentation holds no pixels that can be read"
        return found
    if (
        not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE)
        or image.frames > MAX_FRAMES
        or image.frames * rows * columns > MAX_PIXELS
    ):
        found.reason = "the segmentation is too large"
        return found
    groups = list(children(dataset, "PerFrameFunctionalGroupsSequence"))
    shared = items.first(dataset, "SharedFunctionalGroupsSequence")
    frame_of_reference = text(dataset, "FrameOfReferenceUID")
    if len(groups) != image.frames:
        found.reason = "the segmentation does not describe each of its frames"
        return found
    for number, group in enumerate(groups, start=1):
        geometry = _geometry(group, shared)
        pixels = None if geometry is None else _pixels(image, number)
        if geometry is None or pixels is None:
            found.damaged += 1
            continue
        for segment, mask in _segments(dataset, group, shared, pixels):
            _add(found, segment, mask, geometry, frame_of_reference)
            if found.kept > MAX_KEPT:
                found.reason = "the segmentation is too large: only its first frames were read"
                return found
    return found


def _pixels(image: StoredImage, number: int) -> np.ndarray | None:
    try:
        return np.asarray(image.pixels(number, colour=False)).reshape(int(image.header.Rows), int(image.header.Columns))
    except (NoSuchFrameError, DamagedImageError, ValueError):
        return None


def _segments(dataset: Dataset, group: Dataset, shared: Dataset | None, pixels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return the segments of a frame with their masks. In a fractional segmentation, values of at least one half are set."""
    if text(dataset, "SOPClassUID") == LABEL_MAP:
        return [(int(value), pixels == value) for value in np.unique(pixels) if value][: items.MAX_MARKS]
    named = items.first(group, "SegmentIdentificationSequence")
    if named is None and shared is not None:
        named = items.first(shared, "SegmentIdentificationSequence")
    number = items.integer(named, "ReferencedSegmentNumber") if named is not None else None
    if number is None:
        return []
    if text(dataset, "SegmentationType") == "FRACTIONAL":
        return [(number, pixels >= (items.integer(dataset, "MaximumFractionalValue") or 255) / 2)]
    return [(number, pixels > 0)]


def _geometry(group: Dataset, shared: Dataset | None) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the centre of the first pixel, the step from row to row and that from column to column, mm."""
    values: dict[str, tuple[float, ...]] = {}
    for macro, keyword, count in (
        ("PlanePositionSequence", "ImagePositionPatient", 3),
        ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        ("PixelMeasuresSequence", "PixelSpacing", 2),
    ):
        item = items.first(group, macro) or (items.first(shared, macro) if shared is not None else None)
        found = items.numbers(item, keyword, count) if item is not None else ()
        if len(found) != count:
            return None
        values[keyword] = found
    orientation, spacing = np.array(values["ImageOrientationPatient"]), values["PixelSpacing"]
    if min(spacing) <= 0 or not np.allclose([np.linalg.norm(orientation[:3]), np.linalg.norm(orientation[3:])], 1, atol=0.01):
        return None
    return np.array(values["ImagePositionPatient"]), orientation[3:] * spacing[0], orientation[:3] * spacing[1]


def _add(
    found: _Frames, segment: int, mask: np.ndarray, geometry: tuple[np.ndarray, np.ndarray, np.ndarray], frame_of_reference: str
) -> None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
    origin, along_rows, along_columns = geometry
    corner = origin + rows[0] * along_rows + columns[0] * along_columns
    found.kept += cut.size
    found.planes.setdefault(segment, []).append(
        MaskPlane(cut, _vector(corner), _vector(along_rows), _vector(along_columns), frame_of_reference)
    )


def _vector(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z
