"""Partitions of soft tissue: several ways to separate connected soft tissue into parts that may be nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from alnnode.locate.distances import depth_inside, dilate, erode, grown, mask_box, shrunk
from alnnode.locate.local_filters import gaussian_near, peaks

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from alnnode.locate.grid import FloatVolume, Mask

    Labels = npt.NDArray[np.int32]

SOFT_HU = -20.0  # half way from fat to a node
THRESHOLDS_HU = (-62.0, SOFT_HU, 15.0)  # hila and thin cortices; half way from fat to a node; above strands and partial volume
SHELL_HU = -55.0  # a blurred cortex of 1 mm
SHELL_MM = 2.5  # half the least thickness of tissue that is not a thin cortex
HILUM_MM = 4.0  # half the largest width of a hilum that a closing fills
BRIGHT_HU = 170.0  # above: contrast medium in vessels, bone
PEAK_STEPS = 3  # grid steps around the deepest point of a basin
PEAK_DEPTH = 1.2  # least smoothed depth there, grid steps


@dataclass(frozen=True, slots=True)
class Partition:
    """Soft tissue above a threshold, separated in one way.

    Attributes:
        threshold: HU.
        soft: the soft tissue.
        labels: its parts, numbered from 1; 0 elsewhere.
        box: where in the part of the grid both lie.
    """

    threshold: float
    soft: Mask
    labels: Labels
    box: tuple[slice, ...]


def partitions(hu: FloatVolume, smooth: FloatVolume, near: Mask) -> Iterator[Partition]:
    """Yield partitions of the soft tissue near the search region: connected components, opened, by thick cores, and by watershed.

    Args:
        hu: part of a search grid.
        smooth: the same, smoothed.
        near: where soft tissue is separated.
    """
    low, middle, high = THRESHOLDS_HU
    box = mask_box(near, PEAK_STEPS)
    blurred = gaussian_near(hu, 1.1, near, -np.inf)
    for threshold, values in ((middle, smooth), (low, blurred), (high, smooth)):
        soft = (values[box] > threshold) & (smooth[box] < BRIGHT_HU)
        inside = soft & near[box]
        depth = depth_inside(inside)
        yield Partition(threshold, soft, ndimage.label(inside)[0], box)
        yield Partition(threshold, soft, ndimage.label(grown(shrunk(inside)))[0], box)
        if threshold == middle:
            yield Partition(threshold, soft, _cores(inside, depth), box)
        yield Partition(threshold, soft, _basins(inside, depth), box)
    yield from _shells(hu, smooth, near, box)


def _shells(hu: FloatVolume, smooth: FloatVolume, near: Mask, box: tuple[slice, ...]) -> Iterator[Partition]:
    """Yield partitions of thin cortices around fat: closed over their hilum, away from thick soft tissue."""
    thick = smooth > SOFT_HU
    thick &= _opened(thick, SHELL_MM)
    faint = (gaussian_near(hu, 0.8, near, -np.inf) > SHELL_HU) & (smooth < BRIGHT_HU)
    apart = ~grown(thick) & near
    closed = _closed(faint & apart, HILUM_MM) & apart
    soft, closed = (closed | thick | faint)[box], closed[box]
    yield Partition(SHELL_HU, soft, ndimage.label(grown(shrunk(closed)))[0], box)
    yield Partition(SHELL_HU, soft, _basins(closed, depth_inside(closed)), box)


def _opened(mask: Mask, radius: float) -> Mask:
    """Return the morphological opening by a ball of ``radius`` grid steps."""
    return dilate(erode(mask, radius), radius)


def _closed(mask: Mask, radius: float) -> Mask:
    """Return the morphological closing by a ball of ``radius`` grid steps."""
    return erode(dilate(mask, radius), radius) | mask


def _cores(soft: Mask, depth: FloatVolume) -> Labels:
    """Return the cores that remain after an erosion by 2 mm, regrown: separates a node from a muscle at a thin bridge."""
    core = depth > 2.0
    reach = soft & grown(grown(core))
    labels: Labels = watershed(-depth, ndimage.label(core)[0], mask=reach)
    return labels


def _basins(soft: Mask, depth: FloatVolume) -> Labels:
    """Return the watershed basins of the depth, one for each local maximum."""
    smooth = gaussian_near(depth, 1.0, soft, 0.0)
    maxima = peaks(smooth, PEAK_DEPTH, PEAK_STEPS)
    markers = np.zeros(soft.shape, dtype=np.int32)
    markers[tuple(maxima.T)] = np.arange(1, len(maxima) + 1)
    labels: Labels = watershed(-smooth, markers, mask=soft)
    return labels
