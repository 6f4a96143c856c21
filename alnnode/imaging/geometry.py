"""The frames of a series as one regular stack: sorted by position, checked for gaps, duplicates and mixtures.

Order and position come from Image Position (Patient) alone (PS3.3 C.7.6.2.1.1), projected on the normal of the slices. Instance Number
and Slice Location are not used: they need not agree with the geometry.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.counted import counted
from alnnode.errors import NotAnalysable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.imaging.frames import Frame

    Array = npt.NDArray[np.float64]

MIN_SLICES = 5
MAX_OBLIQUE = 30.0  # degrees between the slice normal and the body axis
MAX_TILT = 30.0  # degrees between the slice normal and the direction of table travel
SAME_PLACE = 0.01  # mm
MAX_SHIFT = 1.0  # mm, largest distance of a slice from the line through all slices


@dataclass(frozen=True, slots=True)
class Stack:
    """A regular stack of slices.

    Attributes:
        places: for each slice, from the feet to the head, the frames at its position; more than one may be duplicates.
        affine: 4x4, (k, j, i, 1) to patient mm.
        spacing: (slice, row, column), mm; the slice distance along the normal.
        notes: as in `alnnode.records.Volume`.
    """

    places: tuple[tuple[Frame, ...], ...]
    affine: Array
    spacing: tuple[float, float, float]
    notes: tuple[str, ...]


def stack(frames: Sequence[Frame], max_spacing_mm: float) -> Stack:
    """Order the frames of a series.

    Args:
        frames: in any order, localizers already left out.
        max_spacing_mm: largest distance of neighbouring slices.

    Raises:
        NotAnalysable: they are not a regular axial stack with small enough distances.
    """
    axial = [frame for frame in frames if _oblique(frame) <= MAX_OBLIQUE]
    notes = [f"{counted(len(frames) - len(axial), 'non-axial image')} left out"] if len(axial) < len(frames) else []
    if not axial:
        raise NotAnalysable(
            "The images are not axial (coronal, sagittal or strongly oblique). Please send the axial reconstruction."
        )
    _check_uniform(axial)
    normal = _normal(axial[0])
    # Some de-identification tools give every image its own Frame of Reference UID. Positions are then assumed comparable.
    if len(axial) > 1 and axial[0].frame_of_reference != axial[1].frame_of_reference:
        notes.append("the images have different Frame of Reference UIDs; positions are assumed comparable")
    places = _places(axial, normal)
    if len(places) < MIN_SLICES <= len(axial):
        raise NotAnalysable(
            f"The {len(axial)} images show only {counted(len(places), 'place')} (bolus tracking or perfusion?). "
            "Please send the axial series of the chest or breast."
        )
    if len(places) < MIN_SLICES:
        raise NotAnalysable(
            f"The series has only {counted(len(places), 'axial slice')}; the analysis needs at least {MIN_SLICES}."
        )
    positions = np.array([place[0].position for place in places])
    along = positions @ normal
    distance = _check_distances(along, positions, max_spacing_mm)
    step, origin = _line(positions)
    _check_line(positions, step, origin, distance)
    notes += _tilt_notes(step, normal)
    row, column = np.array(axial[0].orientation[:3]), np.array(axial[0].orientation[3:])
    row_mm, column_mm = axial[0].pixel_spacing
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = step, column * row_mm, row * column_mm, origin
    return Stack(tuple(places), affine, (float(step @ normal), row_mm, column_mm), tuple(notes))


def _normal(frame: Frame) -> Array:
    """Return the unit normal of a slice, towards the head."""
    normal = np.cross(frame.orientation[:3], frame.orientation[3:]).astype(np.float64)
    normal /= np.linalg.norm(normal)
    return normal if normal[2] >= 0 else -normal


def _oblique(frame: Frame) -> float:
    return float(np.degrees(np.arccos(np.clip(_normal(frame)[2], -1, 1))))


def _check_uniform(frames: Sequence[Frame]) -> None:
    """Check that the frames have one size, frame of reference, pixel spacing and orientation.

    Raises:
        NotAnalysable: they differ.
    """
    if len({(frame.rows, frame.columns) for frame in frames}) > 1:
        raise NotAnalysable(
            "The series mixes images of different size (rows x columns). Please send one reconstruction per series."
        )
    if 1 < len({frame.frame_of_reference for frame in frames}) < len(frames):
        raise NotAnalysable(
            "The series mixes images of different frames of reference, so their places cannot be compared. "
            "Please send one reconstruction per series."
        )
    spacing = np.array([frame.pixel_spacing for frame in frames])
    if np.ptp(spacing, axis=0).max() > 0.001:  # more than rounding, which moves the edge of the matrix by half a pixel at most
        raise NotAnalysable("The series mixes images of different pixel spacings. Please send one reconstruction per series.")
    first = np.array(frames[0].orientation)
    # 0.01 is half a degree: more than rounding, less than the difference of two orientations.
    if any(np.abs(np.array(frame.orientation) - first).max() > 0.01 for frame in frames):
        raise NotAnalysable("The series mixes slices of different orientations. Please send one reconstruction per series.")


def _places(frames: Sequence[Frame], normal: Array) -> list[tuple[Frame, ...]]:
    ordered = sorted(frames, key=lambda f: (float(np.dot(f.position, normal)), f.sop_instance_uid, f.number or 0, f.path))
    places: list[list[Frame]] = []
    for frame in ordered:
        if places and float(np.dot(np.subtract(frame.position, places[-1][0].position), normal)) < SAME_PLACE:
            if np.linalg.norm(np.subtract(frame.position, places[-1][0].position)) > MAX_SHIFT:
                raise NotAnalysable(
                    "The series holds images of one level with different centres. Please send one reconstruction per series."
                )
            places[-1].append(frame)
        else:
            places.append([frame])
    return [tuple(sorted(place, key=lambda f: (f.sop_instance_uid, f.number or 0, f.path))) for place in places]


def _check_distances(along: Array, positions: Array, max_spacing_mm: float) -> float:
    """Return the distance of neighbouring slices, mm.

    Raises:
        NotAnalysable: slices are missing, or the distances are uneven, too large or too small.
    """
    gaps = np.diff(along)
    distance = float(np.median(gaps))
    # Headers often round positions to 0.1 mm: slices 0.625 mm apart have distances of 0.6, 0.7, 0.6.
    tolerance = max(0.11, 0.1 * distance)
    wide = np.flatnonzero(gaps > distance + tolerance)
    lost = np.rint(gaps[wide] / distance).astype(int) - 1
    if wide.size and (lost >= 1).all() and (np.abs(gaps[wide] - (lost + 1) * distance) <= tolerance * (lost + 1)).all():
        low, high = positions[wide[0], 2], positions[wide[-1] + 1, 2]
        total = len(along) + int(lost.sum())
        raise NotAnalysable(
            f"Slices are missing between z = {low:.1f} and {high:.1f} mm, {lost.sum()} of {total}. Please send the series again, complete."
        )
    if wide.size or (gaps < distance - tolerance).any():
        raise NotAnalysable(
            f"The slices are not evenly spaced (from {gaps.min():.4g} to {gaps.max():.4g} mm apart), "
            "so this is not one continuous volume. Please send one reconstruction per series."
        )
    mean = float((along[-1] - along[0]) / (len(along) - 1))
    if mean > max_spacing_mm + 0.05:
        raise NotAnalysable(
            f"The slices are {mean:.3g} mm apart; the analysis needs {max_spacing_mm:.3g} mm or less. Please send the thin reconstruction."
        )
    if mean < 0.1:
        raise NotAnalysable(
            "The slices lie less than 0.1 mm apart, which is not plausible for a CT. Please send the original images."
        )
    return mean


def _line(positions: Array) -> tuple[Array, Array]:
    """Return the least-squares (step, origin) of positions = origin + k * step."""
    index = np.arange(len(positions), dtype=np.float64)
    centred = index - index.mean()
    mean = positions.mean(axis=0)
    step = centred @ (positions - mean) / (centred @ centred)
    return step, mean - step * index.mean()


def _check_line(positions: Array, step: Array, origin: Array, distance: float) -> None:
    off = np.linalg.norm(positions - (origin + np.arange(len(positions))[:, None] * step), axis=1)
    if off.max() > max(MAX_SHIFT, 0.5 * distance):
        z = positions[int(off.argmax()), 2]
        raise NotAnalysable(
            f"The slices do not lie in one line: near z = {z:.1f} mm they are shifted by {off.max():.1f} mm. "
            "Please send one reconstruction per series."
        )


def _tilt_notes(step: Array, normal: Array) -> list[str]:
    cosine = float(step @ normal / np.linalg.norm(step))
    tilt = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    if tilt > MAX_TILT:
        raise NotAnalysable(
            f"The gantry was tilted by {tilt:.0f} degrees; up to {MAX_TILT:.0f} degrees can be analysed. "
            "Please send an axial reconstruction without tilt."
        )
    notes = [f"gantry tilt {tilt:.0f} degrees"] if tilt >= 0.5 else []
    oblique = float(np.degrees(np.arccos(np.clip(normal[2], -1, 1))))
    if oblique >= 0.5 and abs(oblique - tilt) >= 0.5:
        notes.append(f"slices oblique by {oblique:.0f} degrees")
    return notes


def thickness(frames: Sequence[Frame]) -> float | None:
    """Return the most frequent Slice Thickness, mm; None when no frame has one."""
    named = Counter(frame.thickness for frame in frames if frame.thickness is not None)
    return named.most_common(1)[0][0] if named else None
