"""Measured lymph nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from alnnode.records.images import Box


class Side(StrEnum):
    """The patient's side (never the viewer's)."""

    LEFT = "left"
    RIGHT = "right"


class Level(StrEnum):
    """Axillary level: lateral to, behind, or medial to the pectoralis minor."""

    I = "I"  # noqa: E741 - the name of the level
    II = "II"
    III = "III"


class NodeSource(StrEnum):
    """Who located a node: the algorithm of this software, or whoever drew a mark."""

    ALGORITHM = "algorithm"
    READER = "reader"
    ASSISTED = "reader with software"
    DEVICE = "device"  # other software, without a person
    TRUTH = "truth"

    @property
    def is_mark(self) -> bool:
        """Whether the node is a mark in a DICOM object."""
        return self.by_person or self is NodeSource.DEVICE

    @property
    def by_person(self) -> bool:
        """Whether a person drew the mark, alone or with software."""
        return self in {NodeSource.READER, NodeSource.ASSISTED}


@dataclass(frozen=True, slots=True)
class Axis:
    """A measured diameter on one slice; the ends are image coordinates (column, row)."""

    start: tuple[float, float]
    end: tuple[float, float]
    length_mm: float


@dataclass(frozen=True, slots=True)
class Attenuation:
    """Statistics of the voxels inside a node, HU."""

    mean: float
    maximum: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Node:
    """One axillary lymph node, or a candidate that was accepted as one.

    Attributes:
        number: 1-based, in the order of the report.
        box: bounding box in voxels.
        slice_index: k of the representative slice (largest cross-section), on which contour and axes lie.
        contour: outline on that slice in image coordinates (column, row), not closed (first point not repeated).
        score: confidence of the detector, 0 to 1; 1.0 for a marked node.
        hilum_fraction: share of hilar fat in the volume, 0 to 1; None when no hilum is found.
        cortex_mm: thickness of the cortex beside the hilum.
        mask: the node's voxels, of the shape of the box; None when only the outline is known.
    """

    number: int
    box: Box
    side: Side
    slice_index: int
    contour: tuple[tuple[float, float], ...]
    long_axis: Axis
    short_axis: Axis
    attenuation: Attenuation
    volume_mm3: float
    score: float = 1.0
    source: NodeSource = NodeSource.ALGORITHM
    level: Level | None = None
    tracking_uid: str | None = None  # of the mark, or of the same node in a prior report
    hilum_fraction: float | None = None
    cortex_mm: float | None = None
    mask: npt.NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AxillaCoverage:
    """How much of one axilla the series shows.

    Attributes:
        covered: the series shows the whole search region.
        remark: what is missing, for example "cut off at the side of the image".
        shown: the series shows a part of it.
    """

    side: Side
    covered: bool
    remark: str = ""
    shown: bool = True
