"""The table of a cohort: one row for each node, as CSV or Parquet.

A box is in image coordinates as in SCOORD (PS3.3 C.18.6.1.2): columns to the right and rows down, and the first pixel extends from 0 to 1.
So ``left``, ``top``, ``right`` and ``bottom`` are the outer edges of the pixels that the node touches. COCO uses the same coordinates.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alnnode.errors import AlnnodeError
from alnnode.records import Level, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from alnnode.records import Node, Volume

HEADER_ROW: Final = 1  # rows are numbered as in a spreadsheet
MALIGNANT, BENIGN = "malignant", "benign"
LABELS: Final = {MALIGNANT: True, BENIGN: False}
REQUIRED: Final = ("patient", "series_uid", "sop_uid", "left", "top", "right", "bottom")
TEST: Final = "test"
EDGE: Final = 0.25  # a box touches a pixel only if it covers more than this share of it

Contour = tuple[tuple[float, float], ...]


class TableError(AlnnodeError):
    """The table of a cohort cannot be used; the message names rows, never their contents."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem in one row and what to do about it; contains no patient data."""

    row: int
    column: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"row {self.row}, {self.column}: {self.what}; {self.advice}"


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node.

    Attributes:
        patient: a name that no other patient has, such as a pseudonym.
        sop_uid: SOP Instance UID of the slice with the largest cross-section of the node.
        frame: frame number from 1 in a multi-frame instance, else None.
        left, top, right, bottom: the smallest box that contains the node on all its slices, in image coordinates.
        below, above: number of further slices of the node, towards the feet and towards the head.
        contour: outline on that slice in image coordinates, not closed; empty when only the box is known.
        label: "malignant", "benign" or empty.
        pathology: the original text from which the label was derived.
        part: "test" reserves the patient for the test set; empty leaves the choice to the split.
        short_axis_mm: measured by a reader or from a mask; None: the shorter side of the box is used.
        source: kind of object from which the row was read.
        source_uid: SOP Instance UID of that object, or the number of the node in it.
    """

    patient: str
    study_uid: str
    series_uid: str
    sop_uid: str
    frame: int | None
    left: float
    top: float
    right: float
    bottom: float
    below: int = 0
    above: int = 0
    contour: Contour = ()
    label: str = ""
    pathology: str = ""
    side: str = ""
    level: str = ""
    part: str = ""
    short_axis_mm: float | None = None
    source: str = ""
    source_uid: str = ""
    tracking_uid: str = ""


COLUMNS: Final = tuple(field.name for field in fields(NodeRow))


def row_of_node(node: Node, volume: Volume, origin: NodeRow) -> NodeRow:
    """Return the row of a node that was located in a volume; values that the image does not contain come from ``origin``."""
    box, at = node.box, volume.slices[node.slice_index]
    values = {
        name: getattr(origin, name)
        for name in ("patient", "study_uid", "series_uid", "label", "pathology", "source", "source_uid")
    }
    return NodeRow(
        **values,
        sop_uid=at.sop_instance_uid,
        frame=at.frame_number,
        left=box.i0,
        top=box.j0,
        right=box.i1,
        bottom=box.j1,
        below=node.slice_index - box.k0,
        above=box.k1 - 1 - node.slice_index,
        contour=node.contour,
        side=node.side.value,
        level=node.level.value if node.level else "",
        short_axis_mm=node.short_axis.length_mm,
        tracking_uid=node.tracking_uid or origin.tracking_uid,
    )


def edges(low: float, high: float) -> tuple[int, int]:
    """Return the half-open range of pixels between two edges in image coordinates; at least one pixel."""
    first = int(np.floor(low + EDGE))
    return first, max(int(np.ceil(high - EDGE)), first + 1)


def write_table(rows: Sequence[NodeRow], path: Path) -> None:
    """Write the table as Parquet if the file name ends in .parquet, else as CSV.

    Raises:
        TableError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    cells = [{name: _FORMAT.get(name, _text)(getattr(row, name)) for name in COLUMNS} for row in rows]
    if path.suffix.lower() == ".parquet":
        arrow, parquet = _pyarrow()
        parquet.write_table(arrow.table({name: [cell[name] for cell in cells] for name in COLUMNS}), path)
        return
    with path.open("w", newline="", encoding="utf-8") as sink:
        writer = csv.DictWriter(sink, COLUMNS)
        writer.writeheader()
        writer.writerows(cells)


def read_cells(path: Path) -> list[dict[str, str]]:
    """Return the cells of a CSV (comma or semicolon) or Parquet file as text, by column.

    Raises:
        TableError: the file cannot be read as CSV or Parquet.
    """
    if path.suffix.lower() == ".parquet":
        arrow, parquet = _pyarrow()
        try:
            table = parquet.read_table(path)
        except (arrow.ArrowInvalid, OSError) as error:
            raise TableError(f"{path.name} cannot be read as Parquet; write the file again, or use CSV") from error
        return [{name: _text(value) for name, value in row.items()} for row in table.to_pylist()]
    try:
        # Spreadsheets write a byte order mark before UTF-8.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{path.name} is not UTF-8; save it as CSV with UTF-8 encoding") from error
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    # Cells that are missing at the end of a row are empty.
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
    return [
        {(name or "").strip(): (value or "").strip() for name, value in row.items() if isinstance(value, str)} for row in reader
    ]


def read_table(path: Path) -> tuple[dict[int, NodeRow], list[Problem]]:
    """Return the valid rows by their number in a spreadsheet, and the problems of the others.

    Raises:
        TableError: the file is no table, or columns are missing; the message names all of them.
    """
    cells = read_cells(path)
    if not cells:
        raise TableError(f"{path.name} has no rows")
    if missing := [name for name in REQUIRED if name not in cells[0]]:
        raise TableError(
            f"{path.name}, row {HEADER_ROW}: missing column(s) {', '.join(missing)}; docs/training.md lists all columns"
        )
    if unknown := [name for name in cells[0] if name and name not in COLUMNS]:
        raise TableError(f"{path.name}, row {HEADER_ROW}: unknown column(s) {', '.join(unknown)}; rename or remove them")
    rows, problems = {}, []
    for number, cell in enumerate(cells, HEADER_ROW + 1):
        found = [*_lacking(number, cell)]
        values: dict[str, object] = {}
        for name, text in cell.items():
            if not text and name in REQUIRED:
                continue
            try:
                values[name] = _PARSE.get(name, str)(text)
            except ValueError:
                found.append(Problem(number, name, "has an invalid value", _EXPECTED.get(name, "write a number")))
        problems += found
        if not found:
            rows[number] = NodeRow(**(_DEFAULTS | values))  # type: ignore[arg-type]  # each value was parsed for its field
    return rows, problems


def _lacking(number: int, cell: Mapping[str, str]) -> list[Problem]:
    return [Problem(number, name, "is empty", "fill it in for every node") for name in REQUIRED if not cell.get(name)]


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: ICN001, PLC0415 - only Parquet needs it
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise TableError("Parquet needs pyarrow: pip install 'alnnode[train]', or write CSV") from error
    return pyarrow, parquet


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value).strip()


def _points(text: str) -> Contour:
    """Read "column,row column,row …"."""
    points = tuple(tuple(float(number) for number in pair.split(",")) for pair in text.split())
    if any(len(point) != 2 for point in points) or 0 < len(points) < 3 or not np.isfinite(points).all():
        raise ValueError("not an outline")
    return tuple((column, row) for column, row in points)


def _one_of(*allowed: str) -> Callable[[str], str]:
    spelled = {word.casefold(): word for word in (*allowed, "")}

    def parse(text: str) -> str:
        if text.casefold() not in spelled:
            raise ValueError("not an allowed value")
        return spelled[text.casefold()]

    return parse


def _number(text: str) -> float:
    # German and French spreadsheets write decimal commas.
    value = float(text.replace(",", "."))
    if not np.isfinite(value):
        raise ValueError("not a finite number")
    return value


def _count(text: str) -> int:
    value = int(_number(text)) if text else 0
    if value < 0:
        raise ValueError("negative")
    return value


_FORMAT: Final[dict[str, Callable[[object], str]]] = {
    "contour": lambda points: " ".join(f"{_text(float(x))},{_text(float(y))}" for x, y in points),  # type: ignore[attr-defined]  # of a row
}
_PARSE: Final[dict[str, Callable[[str], object]]] = {
    **dict.fromkeys(("left", "top", "right", "bottom"), _number),
    "frame": lambda text: _count(text) or None,
    "below": _count,
    "above": _count,
    "contour": _points,
    "label": _one_of(*LABELS),
    "side": _one_of(*Side),
    "level": _one_of(*Level),
    "part": _one_of(TEST),
    "short_axis_mm": lambda text: _number(text) if text else None,
}
_EXPECTED: Final = {
    "label": "write malignant or benign, or leave it empty; `import --map` maps pathology texts",
    "side": "write left or right, or leave it empty",
    "level": "write I, II or III, or leave it empty",
    "part": "write test, or leave it empty",
    "contour": "write at least three points as column,row column,row",
}
_DEFAULTS: Final = {"study_uid": "", "frame": None}
