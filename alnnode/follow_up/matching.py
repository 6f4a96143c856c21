"""Which node of one axilla is which of an earlier series, once the chests lie on one another.

What is left after the chest is laid on the chest is how the axilla itself moved (arms, breath, breast): a shift of the axilla, or with four nodes a
rigid motion, that brings most nodes onto nodes of a like size. A node that could be two of the earlier ones is left undetermined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    import numpy.typing as npt

    Points = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

ALONE_MM = 7.0  # shift of an axilla for which one node is evidence enough
TOGETHER_MM = 20.0  # and for which two or more are
NEAR_MM = 3.0  # spread of nodes about their places after the shift
GATE_MM = 8.0  # a node further from its place is another one
CLEAR_MM = 3.0  # by so much every other reading must be worse
DOUBLING_MM = 3.0  # what a short axis twice as long, or half, counts like
LARGEST_RATIO = 2.5  # of the short axes of one node in two series
RIGID_NODES = 4
LARGEST_TURN = np.radians(15)


@dataclass(frozen=True, slots=True)
class Match:
    """``pairs``: index of now to index of before; ``unsure``: nodes without a pair that may have one; ``moved``: where the earlier ones are now."""

    pairs: dict[int, int]
    unsure_now: frozenset[int]
    unsure_before: frozenset[int]
    moved: Points


def match(before: Points, before_mm: Points, now: Points, now_mm: Points) -> Match:
    """Match the nodes of one axilla.

    Args:
        before: places (n, 3) of the earlier nodes, brought into this series by the chest, mm.
        before_mm: their short axes (n,).
        now: places (m, 3).
        now_mm: short axes (m,).
    """
    if not len(before) or not len(now):
        return Match({}, frozenset(), frozenset(), before)
    doublings = np.abs(np.log2(before_mm[:, None] / now_mm[None, :]))
    alike = doublings <= np.log2(LARGEST_RATIO)
    moved = _aligned(before, now, alike)
    distance = cdist(moved, now)
    cost = np.where(alike, distance + DOUBLING_MM * doublings, np.inf)
    rows, columns = _assigned(distance, cost)
    pairs, unsure_now, unsure_before = {}, set(), set()
    for i, j in zip(rows, columns, strict=True):
        others = np.concatenate([np.delete(cost[i], j), np.delete(cost[:, j], i)])
        if others.size and others.min() - cost[i, j] < CLEAR_MM:
            unsure_now.add(j)
            unsure_before.add(i)
        else:
            pairs[j] = i
    near = distance < GATE_MM + CLEAR_MM
    free_before = [i for i in range(len(before)) if i not in pairs.values()]
    free_now = [j for j in range(len(now)) if j not in pairs]
    unsure_now |= {j for j in free_now if near[free_before, j].any()}
    unsure_before |= {i for i in free_before if near[i, free_now].any()}
    return Match(pairs, frozenset(unsure_now), frozenset(unsure_before), moved)


def _assigned(distance: Points, cost: Points) -> tuple[list[int], list[int]]:
    """Pairs within the gate at the least sum of costs; to leave two nodes alone costs as much as the gate."""
    allowed = (distance <= GATE_MM) & np.isfinite(cost)
    rows, columns = linear_sum_assignment(np.where(allowed, cost, 10 * GATE_MM))
    kept = [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if allowed[i, j]]
    return [i for i, _ in kept], [j for _, j in kept]


def _aligned(before: Points, now: Points, alike: Bools) -> Points:
    """Move the axilla so that the most nodes come to lie on nodes."""
    moved = before + _shift(before, now, alike)
    for _ in range(3):
        distance = cdist(moved, now)
        rows, columns = _assigned(distance, np.where(alike, distance, np.inf))
        if not rows:
            break
        moved = _fit(before, before[rows], now[columns])
    return moved


def _shift(before: Points, now: Points, alike: Bools) -> Points:
    """The shift, of those that lay one node on another, that most nodes agree with; small ones are likelier."""
    shifts = (now[None, :, :] - before[:, None, :])[alike]
    candidates = np.vstack([np.zeros((1, 3)), shifts[np.linalg.norm(shifts, axis=1) <= TOGETHER_MM]])
    best: Points = candidates[0]
    best_score = -np.inf
    for shift in candidates:
        distance = np.where(alike, cdist(before + shift, now), np.inf)
        held = np.exp(-(np.minimum(distance.min(axis=1), 99.0) ** 2) / (2 * NEAR_MM**2))
        length = float(np.linalg.norm(shift))
        if length > ALONE_MM and np.count_nonzero(held > 0.5) < 2:
            continue
        score = float(held.sum()) - (length / TOGETHER_MM) ** 2
        if score > best_score + 1e-9:
            best, best_score = shift, score
    return best


def _fit(every: Points, source: Points, target: Points) -> Points:
    """Move ``every`` as ``source`` lies best on ``target``: rigidly, or with few points, or a turn too large, by a shift."""
    a, b = source.mean(axis=0), target.mean(axis=0)
    if len(source) >= RIGID_NODES:
        rotation, _ = Rotation.align_vectors(target - b, source - a)
        if rotation.magnitude() <= LARGEST_TURN:
            turned: Points = rotation.apply(every - a) + b
            return turned
    shifted: Points = every + (b - a)
    return shifted
