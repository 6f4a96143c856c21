"""Matching of the nodes of one axilla with those of a prior series, after registration of the chests.

After the registration the axilla itself may have moved (arms, breathing, breast). The remaining motion is a shift, or with at least four
nodes a rigid motion, that maps most nodes to nodes of similar size. A node that fits two prior nodes is left undetermined.
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

ALONE_MM = 7.0  # largest shift of an axilla that a single node may determine
TOGETHER_MM = 20.0  # largest shift that two or more nodes may determine
NEAR_MM = 3.0  # standard deviation of the distances after the shift
GATE_MM = 8.0  # largest distance of matched nodes
CLEAR_MM = 3.0  # least difference to the second best match
DOUBLING_MM = 3.0  # distance that is equivalent to a factor of two in the short axis
LARGEST_RATIO = 2.5  # largest ratio of the short axes of matched nodes
RIGID_NODES = 4
LARGEST_TURN = np.radians(15)


@dataclass(frozen=True, slots=True)
class Match:
    """Matched nodes of one axilla.

    Attributes:
        pairs: index in this series to index in the prior series.
        unsure_now: unmatched nodes of this series that may have a match.
        unsure_before: unmatched nodes of the prior series that may have a match.
        moved: positions (n, 3) of the prior nodes in this series, mm.
    """

    pairs: dict[int, int]
    unsure_now: frozenset[int]
    unsure_before: frozenset[int]
    moved: Points


def match_nodes(before: Points, before_mm: Points, now: Points, now_mm: Points) -> Match:
    """Return the matches between the nodes of one axilla in two series.

    Args:
        before: positions (n, 3) of the prior nodes after registration of the chest, mm.
        before_mm: their short axes (n,), mm.
        now: positions (m, 3) of the nodes of this series, mm.
        now_mm: their short axes (m,), mm.
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
    """Return the pairs (rows, columns) within `GATE_MM` that minimise the sum of costs."""
    allowed = (distance <= GATE_MM) & np.isfinite(cost)
    rows, columns = linear_sum_assignment(np.where(allowed, cost, 10 * GATE_MM))
    kept = [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if allowed[i, j]]
    return [i for i, _ in kept], [j for _, j in kept]


def _aligned(before: Points, now: Points, alike: Bools) -> Points:
    """Return the prior positions, moved so that most nodes lie on nodes of this series."""
    moved = before + _shift(before, now, alike)
    for _ in range(3):
        distance = cdist(moved, now)
        rows, columns = _assigned(distance, np.where(alike, distance, np.inf))
        if not rows:
            break
        moved = _fit(before, before[rows], now[columns])
    return moved


def _shift(before: Points, now: Points, alike: Bools) -> Points:
    """Return the shift between two nodes that most other nodes agree with; small shifts are preferred."""
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
    """Return ``every``, moved as ``source`` fits ``target`` best: rigidly, or with few points or a large rotation by a shift."""
    a, b = source.mean(axis=0), target.mean(axis=0)
    if len(source) >= RIGID_NODES:
        rotation, _ = Rotation.align_vectors(target - b, source - a)
        if rotation.magnitude() <= LARGEST_TURN:
            turned: Points = rotation.apply(every - a) + b
            return turned
    shifted: Points = every + (b - a)
    return shifted
