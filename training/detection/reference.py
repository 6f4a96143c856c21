"""Two readers' marks of one series, and what of them counts: the reference that the detector is trained and judged with.

A reference node is one that both readers marked, at least one of them as sure, with centres within 6 mm and one slice. Every other
mark is neither found nor false: nobody knows what it is. The readers are no radiologists (the README beside the marks says what
they are worth).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alnnode.errors import AlnnodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SAME_NODE_MM = 6.0
READERS = ("A", "B")

Point = tuple[float, float, float]


class MarksError(AlnnodeError):
    """A file of marks cannot be read."""


@dataclass(frozen=True, slots=True)
class MarkedPlace:
    """One place that was marked.

    Attributes:
        centre: (slice, row, column) of the source images, from 0; halves are possible.
        long_mm, short_mm: axes, 0 where none were given.
        readers: how many of the two marked it.
    """

    centre: Point
    long_mm: float
    short_mm: float
    readers: int


@dataclass(frozen=True, slots=True)
class Reference:
    """What two readers say of one series.

    Attributes:
        spacing: (slice, row, column) mm.
        nodes: both marked them, at least one as sure.
        uncertain: all other marks of nodes.
        structures: places that are plainly something else (vessel, muscle, gland).
    """

    spacing: Point
    nodes: tuple[MarkedPlace, ...]
    uncertain: tuple[MarkedPlace, ...]
    structures: tuple[MarkedPlace, ...]


def read(folder: Path, case: str) -> Reference:
    """Read both readers' marks of a case from ``folder/A/<case>.json`` and ``folder/B/<case>.json``.

    Raises:
        MarksError: a file is missing or is not one of marks.
    """
    try:
        first, second = (json.loads((folder / reader / f"{case}.json").read_text(encoding="utf-8")) for reader in READERS)
        return pair(first, second)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MarksError(
            f"the marks of case {case} cannot be read ({type(error).__name__}: {error}); expected are "
            f"{folder}/A/{case}.json and {folder}/B/{case}.json in the format of the README beside them"
        ) from error


def pair(first: Mapping[str, Any], second: Mapping[str, Any]) -> Reference:
    """Join two readers' marks (the parsed JSON files) to a reference."""
    dz, dy, dx = (float(v) for v in first["spacing"])
    spacing = (dz, dy, dx)
    nodes: list[MarkedPlace] = []
    uncertain: list[MarkedPlace] = []
    free = list(range(len(second["nodes"])))
    for mark in first["nodes"]:
        near = [(_distance_mm(mark, second["nodes"][n], spacing), n) for n in free]
        near = [(mm, n) for mm, n in near if mm <= SAME_NODE_MM + dz]
        if not near:
            uncertain.append(_place([mark]))
            continue
        best = min(near)[1]
        free.remove(best)
        other = second["nodes"][best]
        sure = "sure" in (mark["confidence"], other["confidence"])
        (nodes if sure else uncertain).append(_place([mark, other]))
    uncertain += [_place([second["nodes"][n]]) for n in free]
    structures = [_place([mark]) for marks in (first, second) for mark in marks.get("not", [])]
    return Reference(spacing, tuple(nodes), tuple(uncertain), tuple(structures))


def _distance_mm(one: Mapping[str, Any], other: Mapping[str, Any], spacing: Point) -> float:
    steps = [(float(one[axis]) - float(other[axis])) * mm for axis, mm in zip("kyx", spacing, strict=True)]
    return float(np.linalg.norm(steps))


def _place(marks: Sequence[Mapping[str, Any]]) -> MarkedPlace:
    k, y, x = (float(np.mean([float(mark[axis]) for mark in marks])) for axis in "kyx")
    long_mm, short_mm = (float(np.mean([float(mark.get(axis, 0) or 0) for mark in marks])) for axis in ("long_mm", "short_mm"))
    return MarkedPlace((k, y, x), long_mm, short_mm, len(marks))
