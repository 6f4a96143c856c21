"""A map of the nodes: the series projected from front to back, as in a chest radiograph, with all nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from alnnode.imaging.orientation import in_plane
from alnnode.report.capture import canvas, drawing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from PIL import ImageDraw

    from alnnode.records import Analysis, Finding, Volume

RANGE_HU = (-1000, 300)
NUMBER = 16  # font size of a node's number, pixels
TISSUE = 0.02  # least mean of the projection, as a share of the range: below is air around the patient


@dataclass(frozen=True, slots=True)
class Frontal:
    """A view from the front: head up, the patient's right on the left.

    Pixel (v, u) shows the slice ``top - v * pitch / spacing`` and, across the patient, the voxel ``left + u * step``. ``axis`` is the voxel
    axis across the patient: 2 (columns), or 1 (rows) when the patient lies on the side.
    """

    axis: int
    top: float
    slices_per_pixel: float
    left: float
    step: float
    height: int
    width: int

    def place(self, voxel: tuple[float, float, float]) -> tuple[float, float]:
        """Return (x, y) on the view of a voxel position (k, j, i)."""
        return (voxel[self.axis] - self.left) / self.step, (self.top - voxel[0]) / self.slices_per_pixel


def frontal(volume: Volume, width: int, height: int) -> tuple[Frontal, canvas.Rgb]:
    """Return the view that fits the patient into width x height, and its picture."""
    turned = in_plane(volume.affine)
    axis = 1 if turned.transposed else 2
    through = 2 if axis == 1 else 1
    seen = _projection(volume, through)
    patient = np.flatnonzero(seen.max(axis=0) > TISSUE)
    first, last = (int(patient[0]), int(patient[-1])) if len(patient) else (0, seen.shape[1] - 1)
    pitch = max((last - first + 1) * volume.spacing[axis] / width, len(seen) * volume.spacing[0] / height)
    step = pitch / volume.spacing[axis] * (-1 if turned.flip_x else 1)  # the patient's left is on the right of the picture
    middle, slices = (first + last) / 2, pitch / volume.spacing[0]
    view = Frontal(
        axis, (len(seen) - 1) / 2 + (height - 1) / 2 * slices, slices, middle - (width - 1) / 2 * step, step, height, width
    )
    rows = np.rint(view.top - np.arange(height) * slices).astype(int)
    columns = np.rint(view.left + np.arange(width) * step).astype(int)
    inside = ((rows >= 0) & (rows < len(seen)))[:, None] & ((columns >= 0) & (columns < seen.shape[1]))[None, :]
    picked = seen[np.clip(rows, 0, len(seen) - 1)][:, np.clip(columns, 0, seen.shape[1] - 1)] * inside
    level = np.rint(np.clip(picked / max(float(seen.max()), 1e-6), 0, 1) * 200).astype(np.uint8)
    return view, np.repeat(level[..., None], 3, axis=2)


def _projection(volume: Volume, through: int) -> npt.NDArray[np.float32]:
    """Return the mean along a voxel axis within a slice, 0 to 1: shape (slices, across)."""
    low, high = RANGE_HU
    planes = [np.clip(plane, low, high).mean(axis=through - 1, dtype=np.float32) for plane in volume.voxels]
    made: npt.NDArray[np.float32] = ((np.stack(planes) - low) / (high - low)).astype(np.float32)
    return made


def draw(
    page: Image.Image,
    pen: ImageDraw.ImageDraw,
    analysis: Analysis,
    findings: Sequence[Finding],
    place: tuple[int, int, int, int],
) -> None:
    """Draw the map with a ring for every node, in its colour, at least as wide as its short axis; ``place`` is (x, y, width, height)."""
    volume = analysis.volume
    assert volume is not None  # there are nodes
    x, y, width, height = place
    view, picture = frontal(volume, width, height)
    page.paste(Image.fromarray(picture), (x, y))
    rings = []
    for finding in findings:
        at = view.place(finding.node.box.centre)
        radius = max(finding.node.short_axis.length_mm / 2 / (view.slices_per_pixel * volume.spacing[0]), 5.0)
        rings.append((x + at[0] - radius, y + at[1] - radius, x + at[0] + radius, y + at[1] + radius))
    for finding, ring in reversed(list(zip(findings, rings, strict=True))):  # the most probable nodes are drawn last, on top
        pen.ellipse(ring, outline=drawing.ink(finding, analysis), width=2)
    named = [(finding.node.number, drawing.ink(finding, analysis)) for finding in findings]
    area = (x, y, x + width, y + height)
    drawing.numbers(pen, named, rings, area, NUMBER)
    drawing.edge_letters(pen, ("R", "L", "H", ""), area)
