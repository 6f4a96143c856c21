"""Measure the properties of a CT that an implanted node must share: point spread, noise and contrast phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from alnnode.locate.blood_pool import mediastinal_tissue
from alnnode.phantom.settings import Phase

if TYPE_CHECKING:
    from alnnode.locate.chest import Chest
    from alnnode.locate.grid import Coarse
    from alnnode.records import FloatArray, HounsfieldArray

_SOFT_MM: Final = (0.8, 3.0)
_EDGE_HU: Final = (-800.0, -200.0)  # a fifth and four fifths of the way from air to skin
_SPAN: Final = 0.67  # share of the edge width between these two values, for an edge blurred by a Gaussian
_EDGES: Final = 30  # the least number of edges for a reliable median
_STEEPEST: Final = 0.6  # largest slope of the skin against the rows, mm per mm
_BLOOD_HU: Final = 90.0
_LEAST_BLOOD: Final = 0.4  # of the soft tissue: 0.00 to 0.19 without contrast, 0.78 and more with it
_ARTERIAL_HU: Final = 215.0
_FAT_HU: Final = (-135.0, -75.0)


@dataclass(frozen=True, slots=True)
class CtProperties:
    """The measured properties of a CT.

    Attributes:
        edge_width_mm: width of soft edges (``soft`` of `alnnode.phantom.node_drawing.draw_node`).
        missing_noise_hu: standard deviation of the noise that a node drawn over the smoothed CT lacks.
        phase: contrast phase.
        noise_hu: standard deviation of all noise, as it is in fat; None when the CT shows too little homogeneous fat.
    """

    edge_width_mm: float
    missing_noise_hu: float
    phase: Phase
    noise_hu: float | None = None


UNKNOWN_CT: Final = CtProperties(1.3, 0.0, Phase.NONE)  # assumed when nothing can be measured


def measure_ct(
    hu: HounsfieldArray, smooth: FloatArray, spacing: tuple[float, float, float], coarse: Coarse, chest: Chest
) -> CtProperties:
    """Return the properties of a CT.

    Args:
        hu: canonical (z, y, x).
        smooth: `training.data.drawn_nodes.smooth_ct` of it.
        spacing: (z, y, x) mm.
        coarse: the same CT on the coarse grid.
        chest: its chest.
    """
    everything, removed = fat_noise(hu, smooth, spacing) or (None, 0.0)
    missing = 0.0 if everything is None else _rest(everything, removed)
    return CtProperties(edge_width(hu, spacing), missing, contrast_phase(coarse, chest), everything)


def edge_width(hu: HounsfieldArray, spacing: tuple[float, float, float]) -> float:
    """Return the width of the ramp (mm) that rises like the edge from air to skin at the patient's sides.

    The result is that of `UNKNOWN_CT` when the image shows too little skin.
    """
    widths: list[float] = []
    rows = np.arange(hu.shape[1] // 4, 3 * hu.shape[1] // 4)
    for plane in hu[:: max(1, len(hu) // 40)]:
        for turned in (plane[rows], plane[rows, ::-1]):
            widths.extend(_ramps(turned.astype(np.float32), spacing))
    if len(widths) < _EDGES:
        return UNKNOWN_CT.edge_width_mm
    return float(np.clip(np.median(widths), *_SOFT_MM))


def _ramps(plane: FloatArray, spacing: tuple[float, float, float]) -> list[float]:
    """Return the widths (mm) of the first edges from air to body along the rows of a plane, coming from column 0."""
    low, high = _EDGE_HU
    above = plane > high
    first = np.argmax(above, axis=1)
    found = np.flatnonzero((first > 6) & (first < plane.shape[1] - 8))
    outer, inner = np.full(len(plane), np.nan), np.full(len(plane), np.nan)
    for row in found:
        at, line = int(first[row]), plane[row]
        below = np.flatnonzero(line[at - 6 : at] < low)
        if not below.size or line[at + 1 : at + 6].min() < high:  # a sheet or a sleeve is thinner than the body
            continue
        last = at - 6 + int(below[-1])
        if at - last < 2:  # the border of the field of view, or air that software has replaced
            continue
        inner[row] = at - (line[at] - high) / (line[at] - line[at - 1])
        outer[row] = last + (low - line[last]) / (line[last + 1] - line[last])
    slope = np.gradient(ndimage.uniform_filter1d(inner, 5)) * spacing[2] / spacing[1]
    straight = np.abs(slope) < _STEEPEST
    widths = (inner - outer)[straight] * spacing[2] / np.hypot(1, slope[straight])
    return [float(w) / _SPAN for w in widths[np.isfinite(widths)]]


def missing_noise(hu: HounsfieldArray, smooth: FloatArray, spacing: tuple[float, float, float]) -> float:
    """Return the standard deviation (HU) of the noise that smoothing keeps, measured in fat: what a drawn node must get back.

    Return 0 when the CT shows too little homogeneous fat.
    """
    found = fat_noise(hu, smooth, spacing)
    return _rest(*found) if found else 0.0


def fat_noise(hu: HounsfieldArray, smooth: FloatArray, spacing: tuple[float, float, float]) -> tuple[float, float] | None:
    """Return the standard deviation (HU) of all noise in fat, and of the noise that smoothing removes.

    Return None when the CT shows too little homogeneous fat.
    """
    planes = slice(None, None, max(1, len(hu) // 40))
    whole, kept = hu[planes].astype(np.float32), smooth[planes]
    size = [1, *(max(3, round(9.0 / d)) for d in spacing[1:])]
    fat = (kept > _FAT_HU[0]) & (kept < _FAT_HU[1])
    plain = ndimage.minimum_filter(fat, size)
    if np.count_nonzero(plain) < 500:
        return None
    return _spread((whole - ndimage.uniform_filter(whole, size))[plain]), _spread((whole - kept)[plain])


def _rest(everything: float, removed: float) -> float:
    return float(np.sqrt(max(0.0, everything**2 - removed**2)))


def _spread(values: FloatArray) -> float:
    """Return a robust standard deviation from the median of absolute deviations, so that strands and vessels do not count."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def contrast_phase(coarse: Coarse, chest: Chest) -> Phase:
    """Return the contrast phase from the soft tissue between the lungs, most of which is blood."""
    tissue = mediastinal_tissue(coarse, chest)
    if not tissue.size or np.mean(tissue > _BLOOD_HU) < _LEAST_BLOOD:
        return Phase.NONE
    return Phase.ARTERIAL if np.percentile(tissue, 75) > _ARTERIAL_HU else Phase.VENOUS
