"""Combine the marks of two readers on one series into the reference with which the detector is trained and evaluated.

A reference node is a node that both readers marked, at least one of them as sure, with centres at most 6 mm and one slice apart. All other
marks are uncertain: a detector that finds them is neither right nor wrong. The readers are not radiologists (the README beside the marks
describes their reliability).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from alnnode.errors import AlnnodeError
from alnnode.records import Side

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
    """One marked place.

    Attributes:
        centre: (slice, row, column) of the source images, from 0; fractions are possible.
        long_mm, short_mm: axes; 0 if the reader gave none.
        readers: number of readers who marked it, 1 or 2.
    """

    centre: Point
    long_mm: float
    short_mm: float
    readers: int


@dataclass(frozen=True, slots=True)
class Reference:
    """The combined marks of two readers on one series.

    Attributes:
        spacing: (slice, row, column) mm.
        nodes: nodes that both marked, at least one as sure.
        uncertain: all other marks of nodes.
        structures: places that are certainly something else (vessel, muscle, gland).
        slices: first and last slice that both readers count to the axilla of a side; empty if they gave none.
    """

    spacing: Point
    nodes: tuple[MarkedPlace, ...]
    uncertain: tuple[MarkedPlace, ...]
    structures: tuple[MarkedPlace, ...]
    slices: Mapping[Side, tuple[float, float]] = field(default_factory=dict)


def read_reference(folder: Path, case: str) -> Reference:
    """Return the reference of a case from ``folder/A/<case>.json`` and ``folder/B/<case>.json``.

    Raises:
        MarksError: a file is missing or has another format.
    """
    try:
        first, second = (json.loads((folder / reader / f"{case}.json").read_text(encoding="utf-8")) for reader in READERS)
        return pair_readers(first, second)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MarksError(
            f"cannot read the marks of case {case} ({type(error).__name__}: {error}): check "
            f"{folder}/A/{case}.json and {folder}/B/{case}.json against the format in the README beside them"
        ) from error


def pair_readers(first: Mapping[str, Any], second: Mapping[str, Any]) -> Reference:
    """Return the reference from the marks of two readers (the parsed JSON files)."""
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
    return Reference(spacing, tuple(nodes), tuple(uncertain), tuple(structures), _shared_slices(first, second))


def _shared_slices(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[Side, tuple[float, float]]:
    ranges = [marks.get("axilla_range", {}) for marks in (first, second)]
    return {
        side: (max(float(r[letter][0]) for r in ranges), min(float(r[letter][1]) for r in ranges))
        for side, letter in ((Side.RIGHT, "R"), (Side.LEFT, "L"))
        if all(letter in r for r in ranges)
    }


def _distance_mm(one: Mapping[str, Any], other: Mapping[str, Any], spacing: Point) -> float:
    steps = [(float(one[axis]) - float(other[axis])) * mm for axis, mm in zip("kyx", spacing, strict=True)]
    return float(np.linalg.norm(steps))


def _place(marks: Sequence[Mapping[str, Any]]) -> MarkedPlace:
    k, y, x = (float(np.mean([float(mark[axis]) for mark in marks])) for axis in "kyx")
    long_mm, short_mm = (float(np.mean([float(mark.get(axis, 0) or 0) for mark in marks])) for axis in ("long_mm", "short_mm"))
    return MarkedPlace((k, y, x), long_mm, short_mm, len(marks))
