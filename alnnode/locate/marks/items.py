"""Values of data sets of unknown origin, for the readers of all kinds of marks: bounded, and checked before use."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING

from pydicom.multival import MultiValue

from alnnode.imaging.attribute_values import BAD_VALUE, text
from alnnode.imaging.references import children
from alnnode.records import Concept, Drawing, MarkShape, Side

if TYPE_CHECKING:
    from pydicom import Dataset

    Points = tuple[tuple[float, ...], ...]

MAX_DEPTH = 16  # of nested content items
MAX_MARKS = 500  # of one object
MAX_POINTS = 20_000  # of one graphic
MAX_TEXT = 200
MAX_COORDINATE = 1e5  # mm or pixels
CLOSED_GAP = 0.1  # share of a line's length: a line whose ends are nearer counts as closed

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_RIGHT = {("24028007", "SCT"), ("G-A100", "SRT"), ("R", "DCM")}
_LEFT = {("7771000", "SCT"), ("G-A101", "SRT"), ("L", "DCM")}


def first(dataset: Dataset, *keywords: str) -> Dataset | None:
    """Return the first item of nested sequences, by their keywords; None when one is missing."""
    found: Dataset | None = dataset
    for keyword in keywords:
        if found is None:
            return None
        found = next(children(found, keyword), None)
    return found


def words(dataset: Dataset, keyword: str) -> str:
    """Return a short text, without control characters."""
    value = " ".join(text(dataset, keyword)[: 4 * MAX_TEXT].split())
    return "".join(c for c in value if c.isprintable())[:MAX_TEXT]


def uid(dataset: Dataset, keyword: str) -> str | None:
    """Return a valid UID (PS3.5 section 9.1), because result objects copy it; None when it is missing or malformed."""
    value = text(dataset, keyword)
    return value if len(value) <= 64 and _UID.fullmatch(value) else None


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return an integer, the first of several; None when it is missing or malformed."""
    try:
        value = getattr(dataset, keyword, None)
        return int(value[0] if isinstance(value, MultiValue) and value else value)  # type: ignore[arg-type] # TypeError is caught
    except BAD_VALUE:
        return None


def numbers(dataset: Dataset, keyword: str, least: int = 1) -> tuple[float, ...]:
    """Return finite numbers up to `MAX_COORDINATE`; none when there are fewer than ``least``, or when one is out of range."""
    try:
        value = getattr(dataset, keyword, None)
        found = tuple(float(v) for v in (value if isinstance(value, (MultiValue, list, tuple)) else [value]))  # type: ignore[arg-type]
    except BAD_VALUE:
        return ()
    if len(found) < least or not all(math.isfinite(v) and abs(v) <= MAX_COORDINATE for v in found):
        return ()
    return found


def points(dataset: Dataset, keyword: str, dimensions: int) -> Points:
    """Return the points of a graphic; none when they are damaged or too many."""
    flat = numbers(dataset, keyword, dimensions)
    if len(flat) % dimensions or len(flat) > MAX_POINTS * dimensions:
        return ()
    return tuple(flat[n : n + dimensions] for n in range(0, len(flat), dimensions))


def concept(dataset: Dataset, keyword: str) -> Concept | None:
    """Return the coded concept in a sequence."""
    item = first(dataset, keyword)
    if item is None:
        return None
    code = words(item, "CodeValue") or words(item, "LongCodeValue")
    return Concept(code, words(item, "CodingSchemeDesignator"), words(item, "CodeMeaning"))


def laterality(found: Concept | None) -> Side | None:
    """Return the side of a laterality code (PS3.16 CID 244)."""
    if found is None:
        return None
    key = (found.code, found.scheme)
    return Side.RIGHT if key in _RIGHT else Side.LEFT if key in _LEFT else None


def created(dataset: Dataset) -> str:
    """Return the date and time of an object, "YYYYMMDDhhmmss"; empty when it has none."""
    pairs = (
        ("ContentDate", "ContentTime"),
        ("PresentationCreationDate", "PresentationCreationTime"),
        ("StructureSetDate", "StructureSetTime"),
        ("InstanceCreationDate", "InstanceCreationTime"),
        ("SeriesDate", "SeriesTime"),
    )
    for date, time in pairs:
        day = "".join(c for c in words(dataset, date) if c.isdigit())[:8]
        if len(day) == 8:
            clock = "".join(c for c in words(dataset, time).split(".")[0] if c.isdigit())[:6]
            return day + clock.ljust(6, "0")
    return ""


def polygon(corners: Points, *, closed: bool) -> tuple[MarkShape, Points] | None:
    """Return the shape of a polyline (outline, upright rectangle, diameter) and its points; None for an open line of several points.

    Args:
        corners: its points.
        closed: whether it encloses an area even when it does not end at its first point.
    """
    joined = len(corners) > 2 and math.dist(corners[0], corners[-1]) < 1e-3
    distinct = corners[:-1] if joined else corners
    if len(distinct) == 2:
        return MarkShape.LINE, distinct
    if len(distinct) < 3:
        return (MarkShape.POINT, distinct) if distinct else None
    length = sum(math.dist(a, b) for a, b in itertools.pairwise(distinct))
    if not (closed or joined or math.dist(distinct[0], distinct[-1]) <= CLOSED_GAP * length):
        return None
    return (MarkShape.BOX if _upright(distinct) else MarkShape.OUTLINE), distinct


def _upright(corners: Points) -> bool:
    """Return whether four consecutive points are the corners of a rectangle along rows and columns."""
    if len(corners) != 4 or len(corners[0]) != 2:
        return False
    sides = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]
    flat = [min(abs(x), abs(y)) <= 0.01 * max(abs(x), abs(y), 1e-9) for x, y in sides]
    turned = [(abs(x) > abs(y)) != (abs(u) > abs(v)) for (x, y), (u, v) in itertools.pairwise(sides)]
    return all(flat) and all(turned)


def scoord(
    graphic: str, found: Points, where: tuple[str, int | None], frame_of_reference: str = "", *, closed: bool
) -> Drawing | None:
    """Return the drawing of a graphic of SCOORD, SCOORD3D or a presentation state; None when it marks no place."""
    shape: MarkShape | None = None
    count = {"POINT": 1, "CIRCLE": 2, "ELLIPSE": 4}.get(graphic)
    if graphic in {"POINT", "MULTIPOINT"} and found:
        shape = MarkShape.POINT
    elif graphic in {"CIRCLE", "ELLIPSE"} and len(found) == count:
        shape = MarkShape(graphic.lower())
    elif graphic in {"POLYLINE", "POLYGON", "INTERPOLATED"}:
        told = polygon(found, closed=closed or graphic == "POLYGON")
        if told is not None:
            shape, found = told
    return None if shape is None else Drawing(shape, found, where[0], where[1], frame_of_reference)
