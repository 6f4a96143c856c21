"""The two crops of the method, as pure and invertible geometry, for training and for the node.

Park et al. (Curr Oncol 2024;31:2278) name the crops but give no sizes: every number in `CropSettings` is our choice.
*FSC*, the fixed-size crop, is a square of constant millimetres centred on the node: it shows the size of the node.
*ASC*, the adjustable-square crop, is a square around the node's box plus a margin, resized: it shows the shape of the node.
Both have the patient's front up and the patient's right on the left, as a reader sees an axial slice: prone and decubitus series give
the networks the same picture as supine ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alnnode.imaging.orientation import in_plane, upright_steps
from alnnode.imaging.window import apply_window
from alnnode.records import Crop, CropGeometry, CropPair

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import Box, FloatArray, Node, Volume

AIR_HU = -1000.0
BLOOD_RANGE_HU = 400.0  # the blood pool channel is 1 here; 0 means unknown


@dataclass(frozen=True, slots=True)
class CropSettings:
    """Geometry and windows of both crops. The manifest of the bundle holds them, so that a node crops as training did.

    Attributes:
        pixels: side of both crops, pixels.
        fsc_mm: side of the fixed-size crop, mm.
        asc_margin: margin of the adjustable crop on each side, as a share of the box's longer side.
        asc_min_margin_mm: least margin on each side, mm.
        windows: (centre, width) in HU; one channel each.
        slices: number of slices, odd; with more than one, the channels of the node's slice come first, then those of the slices below and
            above, from the nearest outwards.
        slice_step_mm: distance of these slices, mm; values between two slices of the series are interpolated.
        blood_pool: whether a last channel holds the attenuation of the blood, which tells the contrast phase.
    """

    pixels: int = 64
    fsc_mm: float = 48.0
    asc_margin: float = 0.35
    asc_min_margin_mm: float = 2.5
    windows: tuple[tuple[float, float], ...] = ((40.0, 400.0), (40.0, 160.0), (-40.0, 240.0))
    slices: int = 1
    slice_step_mm: float = 3.0
    blood_pool: bool = False

    @property
    def channels(self) -> int:
        """The number of channels of a crop."""
        return len(self.windows) * self.slices + self.blood_pool


def fsc_geometry(volume: Volume, box: Box, slice_index: int, settings: CropSettings) -> CropGeometry:
    """Return the fixed-size crop centred on the box."""
    return _square(volume, (slice_index, *box.centre[1:]), Crop.FSC, settings.fsc_mm, settings.pixels)


def asc_geometry(volume: Volume, box: Box, slice_index: int, settings: CropSettings) -> CropGeometry:
    """Return the square around the box with its margin."""
    longer = max((box.j1 - box.j0) * volume.spacing[1], (box.i1 - box.i0) * volume.spacing[2])
    side = longer + 2 * max(settings.asc_margin * longer, settings.asc_min_margin_mm)
    return _square(volume, (slice_index, *box.centre[1:]), Crop.ASC, side, settings.pixels)


def _square(volume: Volume, centre: tuple[float, float, float], kind: Crop, side_mm: float, pixels: int) -> CropGeometry:
    """Return an upright square of ``side_mm`` around a voxel position (slice, row, column)."""
    slice_index, row, column = centre
    down, right = upright_steps(volume, side_mm / pixels)
    step_row, step_column = down[0] + right[0], down[1] + right[1]  # of each pair, one is 0
    middle = (pixels - 1) / 2
    top, left = row - middle * step_row, column - middle * step_column
    transposed = in_plane(volume.affine).transposed
    return CropGeometry(kind, int(slice_index), top, left, step_row, step_column, pixels, transposed)


def to_voxel(geometry: CropGeometry, v: float, u: float) -> tuple[float, float]:
    """Return the (row, column) of the slice that the crop's pixel (v, u) shows."""
    down, across = (u, v) if geometry.transposed else (v, u)
    return geometry.top + down * geometry.step_row, geometry.left + across * geometry.step_column


def from_voxel(geometry: CropGeometry, row: float, column: float) -> tuple[float, float]:
    """Return the crop's pixel (v, u) of a position on the slice: the inverse of `to_voxel`."""
    down, across = (row - geometry.top) / geometry.step_row, (column - geometry.left) / geometry.step_column
    return (across, down) if geometry.transposed else (down, across)


def sample(volume: Volume, geometry: CropGeometry, windows: tuple[tuple[float, float], ...], offset: float = 0.0) -> FloatArray:
    """Return what a crop shows: shape (windows, size, size), float32, each window scaled to 0..1 in 255 steps.

    The interpolation is linear, after a Gaussian filter where a crop pixel spans more than one voxel; beyond the image is air. Because
    of the 255 steps, training can store a cohort as bytes and still use exactly the input that the node computes.

    Args:
        volume: the series.
        geometry: of the crop.
        windows: (centre, width) in HU.
        offset: distance from the slice of the geometry in slices, towards the head; the first and the last slice continue outwards.
    """
    from scipy import ndimage  # noqa: PLC0415 - who only reads a bundle, such as the HTTP service, starts without SciPy

    rows = geometry.top + np.arange(geometry.size) * geometry.step_row
    columns = geometry.left + np.arange(geometry.size) * geometry.step_column
    reach = 4
    count, height, width = volume.voxels.shape
    j0, j1 = _span(rows, reach, height)
    i0, i1 = _span(columns, reach, width)
    position = min(max(geometry.slice_index + offset, 0.0), count - 1.0)
    below = int(position)
    patch = volume.voxels[below, j0:j1, i0:i1].astype(np.float32)
    if position > below:
        patch += np.float32(position - below) * (volume.voxels[below + 1, j0:j1, i0:i1] - patch)
    # A Gaussian of half a crop pixel avoids aliasing; a crop that enlarges needs none.
    blur = tuple(0.5 * max(abs(step) - 1.0, 0.0) for step in (geometry.step_row, geometry.step_column))
    if any(blur):
        patch = ndimage.gaussian_filter(patch, blur, mode="nearest")
    grid = np.meshgrid(rows - j0, columns - i0, indexing="ij")
    hu = ndimage.map_coordinates(patch, grid, order=1, mode="constant", cval=AIR_HU, prefilter=False)
    hu = hu.T if geometry.transposed else hu
    levels = np.stack([np.rint(apply_window(hu, centre, width) * 255) for centre, width in windows])
    return levels.astype(np.float32) / np.float32(255)


def _span(positions: npt.NDArray[np.floating[Any]], reach: int, limit: int) -> tuple[int, int]:
    """Return the range of an axis that the positions need; it is never empty, so that a crop beyond the image is all air."""
    low = int(np.clip(np.floor(positions.min()) - reach, 0, limit - 1))
    high = int(np.clip(np.ceil(positions.max()) + reach + 1, low + 1, limit))
    return low, high


def crops_for(volume: Volume, node: Node, settings: CropSettings, blood_hu: float | None = None) -> CropPair:
    """Return both crops of a node on its representative slice."""
    return crop_box(volume, node.box, node.slice_index, settings, blood_hu)


def crop_box(volume: Volume, box: Box, slice_index: int, settings: CropSettings, blood_hu: float | None = None) -> CropPair:
    """Return both crops of a box on a slice.

    Args:
        volume: the series.
        box: of the node.
        slice_index: the slice that the crops are centred on.
        settings: geometry and channels.
        blood_hu: attenuation of the blood (`alnnode.locate.blood_pool`), for ``settings.blood_pool``; None: unknown.
    """
    fsc = fsc_geometry(volume, box, slice_index, settings)
    asc = asc_geometry(volume, box, slice_index, settings)
    return CropPair(_input(volume, fsc, settings, blood_hu), _input(volume, asc, settings, blood_hu), fsc, asc)


def _input(volume: Volume, geometry: CropGeometry, settings: CropSettings, blood_hu: float | None) -> FloatArray:
    """Return the input of a network: shape (channels, size, size), float32, 0..1 in 255 steps."""
    steps = [sign * n for n in range(1, settings.slices // 2 + 1) for sign in (-1, 1)]
    offsets = [step * settings.slice_step_mm / volume.spacing[0] for step in (0, *steps)]
    parts = [sample(volume, geometry, settings.windows, offset) for offset in offsets]
    if settings.blood_pool:
        share = 0.0 if blood_hu is None else float(np.clip(blood_hu / BLOOD_RANGE_HU, 1 / 255, 1))
        level = np.rint(np.float32(share * 255)) / np.float32(255)
        parts.append(np.full((1, geometry.size, geometry.size), level, np.float32))
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
