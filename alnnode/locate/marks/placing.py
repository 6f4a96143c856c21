"""The geometry of a mark in voxels of a volume: what the reader drew, before it is extended to a node."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from skimage.draw import polygon2mask, polygon_perimeter

from alnnode.imaging.attribute_values import text
from alnnode.records import MarkShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.locate.grid import Mask
    from alnnode.records import Drawing, MaskPlane, Volume

    Floats = npt.NDArray[np.float64]

MAX_EXTENT_MM = 100.0  # larger structures are organs, muscles or target volumes, not nodes
ON_CENTRE = 0.02  # pixels: contours are written with few decimals
MAX_GAP_MM = 10.0  # largest distance of contoured slices; the slices between them are filled in
ROUND = 360  # corners of a round shape: a circle of 50 mm loses 0.002 mm
OFF_SLICE = 0.6  # of a slice distance: a point further from every slice lies on none


class MisplacedError(Exception):
    """A mark cannot be placed in this volume; the message gives the reason without patient data."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A graphic on one slice: ``points`` in voxel coordinates (row, column)."""

    shape: MarkShape
    slice_index: int
    points: Floats


def frame_of_reference(volume: Volume) -> str:
    """Return the UID of the volume's frame of reference."""
    return text(volume.header, "FrameOfReferenceUID")


def place(volume: Volume, drawing: Drawing) -> Placed:
    """Return a graphic with its slice and its voxel coordinates.

    Patient coordinates (points of three numbers) are used when their frame of reference is that of the volume, whatever image they refer to.

    Raises:
        MisplacedError: it lies on another image, in another frame of reference or in none, or outside.
    """
    if drawing.frame_of_reference or len(drawing.points[0]) == 3:
        return _in_patient(volume, drawing)
    for k, reference in enumerate(volume.slices):
        if reference.sop_instance_uid == drawing.sop_instance_uid and drawing.frame_number in {None, reference.frame_number, 1}:
            if reference.frame_number is not None and drawing.frame_number != reference.frame_number:
                continue
            points = np.array(drawing.points, dtype=np.float64)[:, ::-1] - 0.5
            return _inside(volume, Placed(drawing.shape, k, points))
    raise MisplacedError("it lies on an image that is not of this series")


def _in_patient(volume: Volume, drawing: Drawing) -> Placed:
    if drawing.frame_of_reference:
        if drawing.frame_of_reference != frame_of_reference(volume):
            raise MisplacedError("it is in another frame of reference")
    elif drawing.sop_instance_uid not in {at.sop_instance_uid for at in volume.slices}:
        raise MisplacedError("it names no frame of reference and no image of this series; export it again with either")
    voxels = to_voxels(volume, np.array(drawing.points, dtype=np.float64))
    k = round(float(np.median(voxels[:, 0])))
    if np.abs(voxels[:, 0] - k).max() > OFF_SLICE:
        raise MisplacedError("it does not lie in a slice of this series")
    return _inside(volume, Placed(drawing.shape, k, voxels[:, 1:]))


def to_voxels(volume: Volume, points: Floats) -> Floats:
    """Return the voxel coordinates (k, j, i) of patient coordinates, both of shape (n, 3)."""
    inverse = np.linalg.inv(volume.affine)
    voxels: Floats = points @ inverse[:3, :3].T + inverse[:3, 3]
    return voxels


def _inside(volume: Volume, placed: Placed) -> Placed:
    slices, rows, columns = volume.voxels.shape
    low, high = placed.points.min(axis=0), placed.points.max(axis=0)
    if not 0 <= placed.slice_index < slices or min(low) < -1 or high[0] > rows or high[1] > columns:
        raise MisplacedError("it lies outside the images")
    if ((high - low) * np.array(volume.spacing[1:])).max() > MAX_EXTENT_MM:
        raise MisplacedError("it is too large for a lymph node")
    return placed


def outline_of(volume: Volume, placed: Placed) -> Floats:
    """Return the outline (row, column) of a polygon, ellipse, circle, diameter, axes or rectangle.

    Axes give the ellipse with these diameters; a rectangle gives its inscribed ellipse.
    """
    points = placed.points
    scale = np.array(volume.spacing[1:])
    angle = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)[:, None]
    match placed.shape:
        case MarkShape.ELLIPSE | MarkShape.AXES:
            centre = points.mean(axis=0)
            outline = centre + np.cos(angle) * (points[1] - points[0]) / 2 + np.sin(angle) * (points[3] - points[2]) / 2
        case MarkShape.CIRCLE:
            radius = float(np.linalg.norm((points[1] - points[0]) * scale))
            outline = points[0] + radius * np.hstack([np.cos(angle), np.sin(angle)]) / scale
        case MarkShape.LINE:
            radius = float(np.linalg.norm((points[1] - points[0]) * scale)) / 2
            outline = points.mean(axis=0) + radius * np.hstack([np.cos(angle), np.sin(angle)]) / scale
        case MarkShape.BOX:
            low, high = points.min(axis=0), points.max(axis=0)
            outline = (low + high) / 2 + np.hstack([np.cos(angle), np.sin(angle)]) * (high - low) / 2
        case _:
            outline = points
    return np.asarray(outline, dtype=np.float64)


def plane_mask(volume: Volume, outline: Floats) -> Mask:
    """Return the filled outline (row, column); a very small outline contains at least the voxel at its centre."""
    rows, columns = volume.voxels.shape[1:]
    low = np.maximum(np.floor(outline.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 1, (rows, columns))
    mask = np.zeros((rows, columns), dtype=bool)
    if (high > low).all():
        mask[low[0] : high[0], low[1] : high[1]] = polygon2mask(tuple(high - low), outline - low)
    if not mask.any():
        j, i = np.clip(np.rint(outline.mean(axis=0)).astype(int), 0, (rows - 1, columns - 1))
        mask[j, i] = True
    return mask


def traced_mask(volume: Volume, outline: Floats) -> Mask:
    """Return the pixels along an outline (row, column) if all its corners are centres of pixels; else none.

    OpenCV traces the outermost pixels of a mask, and rt-utils writes these outlines: without them a node would lose half a pixel on all sides.
    """
    mask = np.zeros(volume.voxels.shape[1:], dtype=bool)
    corners = np.rint(outline).astype(int)
    outside = (corners.max(axis=0) < 0).any() or (corners.min(axis=0) >= mask.shape).any()
    if len(corners) > 2 and not outside and np.abs(outline - corners).max() < ON_CENTRE:
        mask[polygon_perimeter(*corners.T, shape=mask.shape, clip=True)] = True
    return mask


def stacked(volume: Volume, placed: Sequence[Placed]) -> tuple[Mask, int]:
    """Return the filled outlines of several slices, and the slices between them. Two outlines on one slice exclude each other (XOR).

    Returns:
        The mask (slices, rows, columns), and the index of its first slice.

    Raises:
        MisplacedError: the slices are too far from each other, or together too many.
    """
    slices = sorted({item.slice_index for item in placed})
    first, last = slices[0], slices[-1]
    if (last - first + 1) * volume.spacing[0] > MAX_EXTENT_MM:
        raise MisplacedError("it is too large for a lymph node")
    if any((b - a) * volume.spacing[0] > MAX_GAP_MM for a, b in itertools.pairwise(slices)):
        raise MisplacedError("its contours lie too far from each other")
    mask = np.zeros((last - first + 1, *volume.voxels.shape[1:]), dtype=bool)
    outlines = [(item.slice_index - first, outline_of(volume, item)) for item in placed]
    for k, outline in outlines:
        mask[k] ^= plane_mask(volume, outline)
    for k, outline in outlines:  # afterwards, because the outline of a hole is traced along the pixels around it
        mask[k] |= traced_mask(volume, outline)
    for k in range(first, last + 1):
        if k not in slices:
            mask[k - first] = mask[min(slices, key=lambda n: (abs(n - k), n)) - first]
    return mask, first


def segment(volume: Volume, planes: Sequence[MaskPlane]) -> tuple[Mask, tuple[int, int, int]]:
    """Return the frames of a segment on the raster of the volume: the nearest pixel of the nearest frame.

    Returns:
        The mask, and the offset (k, j, i) of its first voxel.

    Raises:
        MisplacedError: it is in another frame of reference, outside, too large, or its frames are not parallel.
    """
    if not planes:
        raise MisplacedError("it is empty")
    if any(plane.frame_of_reference != frame_of_reference(volume) for plane in planes):
        raise MisplacedError("it is in another frame of reference")
    lead = planes[0]
    rows, columns = np.array(lead.along_rows), np.array(lead.along_columns)
    if any(not np.allclose((p.along_rows, p.along_columns), (rows, columns), atol=1e-3) for p in planes):
        raise MisplacedError("its frames are not parallel")
    normal = np.cross(columns, rows) / np.linalg.norm(np.cross(columns, rows))
    heights = np.array([float(np.dot(plane.origin, normal)) for plane in planes])
    corners = np.vstack([_corners(plane) for plane in planes])
    reach = max(_spacing(heights), volume.spacing[0]) / 2
    swept = to_voxels(volume, np.vstack([corners - reach * normal, corners + reach * normal]))
    low = np.maximum(np.floor(swept.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(swept.max(axis=0)).astype(int) + 1, volume.voxels.shape)
    if (high <= low).any():
        raise MisplacedError("it lies outside the images")
    if ((high - low) * np.array(volume.spacing)).max() > MAX_EXTENT_MM:
        raise MisplacedError("it is too large for a lymph node")
    mask = np.zeros(tuple(high - low), dtype=bool)
    in_plane = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low[1:], high[1:], strict=True)), indexing="ij"), axis=-1)
    for n in range(len(mask)):  # one slice at a time: coordinates of all voxels of a large segment would take gigabytes
        voxels = np.insert(in_plane.reshape(-1, 2), 0, low[0] + n, axis=1)
        patient = voxels @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        mask[n] = _sampled(patient, planes, heights, normal, reach).reshape(mask.shape[1:])
    return mask, (int(low[0]), int(low[1]), int(low[2]))


def _sampled(patient: Floats, planes: Sequence[MaskPlane], heights: Floats, normal: Floats, reach: float) -> Mask:
    """Return for each point whether its pixel in the nearest frame is set."""
    level = patient @ normal
    nearest, distance = np.zeros(len(patient), dtype=int), np.full(len(patient), np.inf)
    low, high = float(level.min()) - reach - 1e-3, float(level.max()) + reach + 1e-3
    close = [number for number, height in enumerate(heights) if low <= height <= high]
    for number in close:
        here = np.abs(level - heights[number])
        nearest[here < distance] = number
        np.minimum(distance, here, out=distance)
    near = distance <= reach + 1e-3
    found = np.zeros(len(patient), dtype=bool)
    for number in close:
        plane = planes[number]
        # Two frames at one height (a segment in parts) both count.
        mine = near & (np.abs(heights[nearest] - heights[number]) < 1e-3)
        steps = np.array(plane.along_rows), np.array(plane.along_columns)
        places = [np.rint((patient[mine] - plane.origin) @ step / np.dot(step, step)).astype(int) for step in steps]
        inside = np.logical_and.reduce([(p >= 0) & (p < n) for p, n in zip(places, plane.pixels.shape, strict=True)])
        values = np.zeros(inside.shape, dtype=bool)
        values[inside] = plane.pixels[places[0][inside], places[1][inside]]
        found[mine] |= values
    return found


def _corners(plane: MaskPlane) -> Floats:
    rows, columns = plane.pixels.shape
    steps = [(j, i) for j in (-0.5, rows - 0.5) for i in (-0.5, columns - 0.5)]
    return np.array(
        [np.array(plane.origin) + j * np.array(plane.along_rows) + i * np.array(plane.along_columns) for j, i in steps]
    )


def _spacing(heights: Floats) -> float:
    different = np.diff(np.unique(np.round(heights, 3)))
    return float(np.median(different)) if different.size else 0.0
