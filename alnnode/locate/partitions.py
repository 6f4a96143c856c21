"""Partitions of soft tissue: several ways to separate connected soft tissue into parts that may be nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from alnnode.locate.distances import depth_inside, dilate, erode

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


@dataclass(frozen=True, slots=True)
class Partition:
    """Soft tissue above a threshold, separated in one way.

    Attributes:
        threshold: HU.
        soft: the soft tissue.
        labels: its parts, numbered from 1; 0 elsewhere.
    """

    threshold: float
    soft: Mask
    labels: Labels


def partitions(hu: FloatVolume, smooth: FloatVolume, near: Mask) -> Iterator[Partition]:
    """Yield partitions of the soft tissue near the search region: connected components, opened, by thick cores, and by watershed.

    Args:
        hu: part of a search grid.
        smooth: the same, smoothed.
        near: where soft tissue is separated.
    """
    low, middle, high = THRESHOLDS_HU
    blurred = ndimage.gaussian_filter(hu, 1.1, truncate=2.5)
    for threshold, values in ((middle, smooth), (low, blurred), (high, smooth)):
        soft = (values > threshold) & (smooth < BRIGHT_HU)
        inside = soft & near
        yield Partition(threshold, soft, ndimage.label(inside)[0])
        yield Partition(threshold, soft, ndimage.label(ndimage.binary_opening(inside))[0])
        depth = depth_inside(inside)
        if threshold == middle:
            yield Partition(threshold, soft, _cores(inside, depth))
        yield Partition(threshold, soft, _basins(inside, depth))
    yield from _shells(hu, smooth, near)


def _shells(hu: FloatVolume, smooth: FloatVolume, near: Mask) -> Iterator[Partition]:
    """Yield partitions of thin cortices around fat: closed over their hilum, away from thick soft tissue."""
    thick = _opened(smooth > THRESHOLDS_HU[1], SHELL_MM) & (smooth > THRESHOLDS_HU[1])
    faint = (ndimage.gaussian_filter(hu, 0.8, truncate=2.5) > SHELL_HU) & (smooth < BRIGHT_HU)
    apart = ~ndimage.binary_dilation(thick)
    closed = _closed(faint & apart & near, HILUM_MM) & apart & near
    soft = closed | thick | faint
    yield Partition(SHELL_HU, soft, ndimage.label(ndimage.binary_opening(closed))[0])
    yield Partition(SHELL_HU, soft, _basins(closed, depth_inside(closed)))


def _opened(mask: Mask, radius: float) -> Mask:
    """Return the morphological opening by a ball of ``radius`` grid steps."""
    return dilate(erode(mask, radius), radius)


def _closed(mask: Mask, radius: float) -> Mask:
    """Return the morphological closing by a ball of ``radius`` grid steps."""
    return erode(dilate(mask, radius), radius) | mask


def _cores(soft: Mask, depth: FloatVolume) -> Labels:
    """Return the cores that remain after an erosion by 2 mm, regrown: separates a node from a muscle at a thin bridge."""
    core = depth > 2.0
    reach = soft & ndimage.binary_dilation(core, iterations=2)
    labels: Labels = watershed(-depth, ndimage.label(core)[0], mask=reach)
    return labels


def _basins(soft: Mask, depth: FloatVolume) -> Labels:
    """Return the watershed basins of the depth, one for each local maximum."""
    smooth = ndimage.gaussian_filter(depth, 1.0, truncate=2.5)
    maxima = peak_local_max(smooth, min_distance=3, threshold_abs=1.2, exclude_border=False)
    markers = np.zeros(soft.shape, dtype=np.int32)
    markers[tuple(maxima.T)] = np.arange(1, len(maxima) + 1)
    labels: Labels = watershed(-smooth, markers, mask=soft)
    return labels
