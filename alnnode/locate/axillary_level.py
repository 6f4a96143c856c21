"""Axillary level of a node from its position relative to landmarks of the chest.

The levels are defined by the pectoralis minor (Berg, Cancer 1955): lateral to it, behind it, medial to it. The muscle itself is hard to
find on plain CT; its position follows from the rib cage, the lung apex and the breadth of the chest. A small model, fitted on phantoms
(`training.fit.levels`), gives a probability for each level. A position with two similar probabilities is left undetermined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from alnnode.errors import BundleError
from alnnode.locate import anatomy
from alnnode.records import Level

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from alnnode.locate.chest import Chest
    from alnnode.locate.grid import Coarse

    Floats = npt.NDArray[np.float64]

PLACES = 5  # values that describe a position
TERMS = 1 + PLACES + PLACES * (PLACES + 1) // 2  # the constant, the values, and all products of two
ORDER = (Level.I, Level.II, Level.III)


class Landmarks:
    """The landmarks of one chest; describes positions relative to them."""

    def __init__(self, coarse: Coarse, chest: Chest) -> None:
        self._chest, self._step, self._spacing = chest, coarse.step, coarse.spacing
        dz = coarse.spacing[0]
        self._low = max(0, chest.apex - round(anatomy.AXILLA_BELOW_APEX_MM / dz))
        self._shoulder = max(self._low, chest.apex - round(anatomy.SHOULDER_MM / dz))
        self._front, self._back = anatomy.thorax_depth(chest, self._low)
        columns = [np.flatnonzero(plane.any(axis=0)) for plane in chest.thorax[self._low : chest.apex + 1]]
        self._half = max((float(c[-1] - c[0]) / 2 for c in columns if c.size), default=1.0)

    def ramps(self, start: tuple[int, int, int], step: tuple[float, float, float], *, left: bool) -> Floats:
        """Return the positions of the points of a grid relative to the landmarks, shape (3, 2): value at 0 and slope along each axis.

        dm below the lung apex along z; depth from the front (0) to the back (1) of the chest along y; distance from the midline by
        half the breadth of the chest, growing towards the arm, along x.

        Args:
            start: canonical voxel (z, y, x) of the source at grid point 0.
            step: source voxels from one grid point to the next, of each axis.
            left: whether the grid is of the left side.
        """
        at, by = ([v / s for v, s in zip(values, self._step, strict=True)] for values in (start, step))
        dm, depth, away = self._spacing[0] / 100, max(1, self._back - self._front), 1 if left else -1
        return np.array(
            [
                [(self._chest.apex - at[0]) * dm, -by[0] * dm],
                [(at[1] - self._front) / depth, by[1] / depth],
                [away * (at[2] - self._chest.midline) / self._half, away * by[2] / self._half],
            ]
        )

    def level(self, model: LevelModel, place: Floats) -> Level | None:
        """Return the level of a position; None when two are similarly likely, or when the images do not show the landmarks."""
        return model.level(place) if self._chest.sight.landmarks else None

    def place(self, z: float, y: float, x: float) -> Floats:
        """Return the values that describe a canonical voxel position of the source, shape (`PLACES`,).

        mm below the lung apex; distance from the midline by half the breadth of the chest; mm lateral of the rib cage; depth from the
        front (0) to the back (1) of the chest; mm from the chest wall of the slice.
        """
        chest = self._chest
        dz, dy, dx = self._spacing
        z, y, x = z / self._step[0], y / self._step[1], x / self._step[2]
        slices, rows, columns = chest.thorax.shape
        k, j, i = min(int(z), slices - 1), min(int(y), rows - 1), min(int(x), columns - 1)
        cage = np.flatnonzero(chest.thorax[min(max(k, self._low), self._shoulder)].any(axis=0))
        wall = (cage[0] if x < chest.midline else cage[-1]) if cage.size else chest.midline
        thorax = chest.thorax[min(k, chest.apex)]
        distance = ndimage.distance_transform_edt(~thorax, (dy, dx))[j, i] if thorax.any() else 0.0
        return np.array(
            [
                (chest.apex - z) * dz,
                abs(x - chest.midline) / self._half,
                (abs(x - chest.midline) - abs(wall - chest.midline)) * dx,
                (y - self._front) / max(1, self._back - self._front),
                distance,
            ]
        )


@dataclass(frozen=True, slots=True)
class LevelModel:
    """Multinomial logistic regression on the position values and their products.

    Attributes:
        mean, scale: of the position values, `PLACES` each.
        weights: `TERMS` values for each level of `ORDER`.
        least: probability below which a level is not determined.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    least: float = 0.6

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LevelModel:
        """Return the model from a manifest.

        Raises:
            BundleError: values are missing or out of range.
        """
        try:
            model = cls(
                tuple(map(float, values["mean"])),
                tuple(map(float, values["scale"])),
                tuple(tuple(map(float, row)) for row in values["weights"]),
                float(values["least"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("the bundle's model of axillary levels cannot be used; fetch the bundle again") from error
        shapes = {len(model.mean), len(model.scale)} == {PLACES} and [len(row) for row in model.weights] == [TERMS] * len(ORDER)
        if not shapes or not np.isfinite([*model.mean, *model.scale, *sum(model.weights, ())]).all() or min(model.scale) <= 0:
            raise BundleError("the bundle's model of axillary levels is out of range; fetch the bundle again")
        return model

    def probabilities(self, place: Floats) -> Floats:
        """Return the probability of each level of `ORDER` at a position."""
        logits: Floats = np.array(self.weights) @ terms((place - np.array(self.mean)) / np.array(self.scale))
        odds = np.exp(logits - logits.max())
        shares: Floats = odds / odds.sum()
        return shares

    def level(self, place: Floats) -> Level | None:
        """Return the level of a position; None when no probability reaches ``least``."""
        shares = self.probabilities(place)
        best = int(shares.argmax())
        return ORDER[best] if shares[best] >= self.least else None


def terms(scaled: Floats) -> Floats:
    """Return the constant 1, the values, and all products of two of them, shape (`TERMS`,)."""
    pairs = [scaled[a] * scaled[b] for a in range(PLACES) for b in range(a, PLACES)]
    return np.array([1.0, *scaled, *pairs])
