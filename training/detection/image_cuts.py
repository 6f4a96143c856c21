"""Cut the images of a series at one of its six sides, and coarsen what is left without another pass over the voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from alnnode.locate.grid import Coarse, coarsen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alnnode.locate.grid import Frame
    from alnnode.records import HounsfieldArray, Volume

    Triple = tuple[int, int, int]


class CutSide(StrEnum):
    """The side of the images that a cut removes, in patient directions."""

    RIGHT = "right"
    LEFT = "left"
    FRONT = "front"
    BACK = "back"
    BOTTOM = "bottom"
    TOP = "top"

    @property
    def axis(self) -> int:
        """The axis of the canonical volume (z, y, x)."""
        return {"bottom": 0, "top": 0, "front": 1, "back": 1}.get(self.value, 2)

    @property
    def low(self) -> bool:
        """Whether the first elements of the axis are removed, not the last."""
        return self in {CutSide.RIGHT, CutSide.FRONT, CutSide.BOTTOM}


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut: ``removed`` canonical voxels (columns, rows or slices) of one side."""

    side: CutSide
    removed: int

    @property
    def start(self) -> Triple:
        """The first canonical voxel (z, y, x) that is left."""
        at = self.removed if self.side.low else 0
        z, y, x = (at if axis == self.side.axis else 0 for axis in range(3))
        return z, y, x


class CuttableSeries:
    """The canonical voxels of a volume, from which cuts are made."""

    def __init__(self, volume: Volume, frame: Frame) -> None:
        self.voxels: HounsfieldArray = frame.canonical(volume.voxels)
        self.spacing = frame.spacing
        self._shifted: dict[Triple, Coarse] = {}

    @cached_property
    def whole(self) -> Coarse:
        """The coarse volume before any cut."""
        return self._from((0, 0, 0))

    def cut(self, cut: Cut) -> HounsfieldArray:
        """Return the canonical voxels that a cut leaves."""
        return self.voxels[self._left(cut, self.voxels.shape[cut.side.axis], cut.removed)]

    def blocks(self, cut: Cut) -> tuple[int, int]:
        """Return the phase of the coarse grid and the number of coarse elements that a cut leaves along its axis.

        Cuts of one side with equal values have the same coarse volume.
        """
        axis, step = cut.side.axis, self.whole.step[cut.side.axis]
        left = self.voxels.shape[axis] - cut.removed
        return (cut.removed % step if cut.side.low else 0), -(-left // step) if axis == 0 else left // step

    def coarse(self, cut: Cut) -> Coarse:
        """Return the coarse volume of what a cut leaves: the same values as `coarsen` of `cut`.

        The blocks of a cut at the first voxels begin at that cut. Only as many block positions exist as a block has voxels, so that the
        coarse volume of each is computed once and then only cropped.
        """
        axis, step = cut.side.axis, self.whole.step[cut.side.axis]
        phase, kept = self.blocks(cut)
        z, y, x = (phase if a == axis else 0 for a in range(3))
        source = self._from((z, y, x))
        removed = source.hu.shape[axis] - kept if not cut.side.low else cut.removed // step
        return Coarse(source.hu[self._left(cut, source.hu.shape[axis], removed)], source.step, source.spacing)

    def _from(self, start: Triple) -> Coarse:
        if start not in self._shifted:
            self._shifted[start] = coarsen(self.voxels[tuple(slice(at, None) for at in start)], self.spacing)
        return self._shifted[start]

    @staticmethod
    def _left(cut: Cut, size: int, removed: int) -> tuple[slice, ...]:
        kept = slice(removed, None) if cut.side.low else slice(0, size - removed)
        return tuple(kept if axis == cut.side.axis else slice(None) for axis in range(3))


def turned_copies(volume: Volume) -> Iterator[Volume]:
    """Yield a volume as all scans of the same anatomy store it: supine, prone, on either side and mirrored, head or feet first."""
    for transposed, flip_rows, flip_columns in product((False, True), repeat=3):
        voxels, axes, last = volume.voxels, np.eye(4), np.zeros(4)
        if flip_rows:
            voxels, axes[1, 1], last[1] = voxels[:, ::-1], -1, voxels.shape[1] - 1
        if flip_columns:
            voxels, axes[2, 2], last[2] = voxels[:, :, ::-1], -1, voxels.shape[2] - 1
        axes[:, 3] += last
        spacing = volume.spacing
        if transposed:
            voxels, axes, spacing = voxels.transpose(0, 2, 1), axes[:, [0, 2, 1, 3]], (spacing[0], spacing[2], spacing[1])
        yield replace(volume, voxels=np.ascontiguousarray(voxels), affine=volume.affine @ axes, spacing=spacing)
