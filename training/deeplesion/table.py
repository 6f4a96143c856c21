"""Read ``DL_info.csv``, the table of lesions of DeepLesion: one row for each lesion that a radiologist bookmarked and measured."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

from training.deeplesion.errors import DeepLesionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom; pixels, integers at pixel centres, the first is 0

FILE_NAME: Final = re.compile(r"(?P<series>\d+_\d+_\d+)_(?P<slice>\d+)\.png")
COLUMNS: Final = (
    "File_name",
    "Patient_index",
    "Key_slice_index",
    "Bounding_boxes",
    "Normalized_lesion_location",
    "Possibly_noisy",
    "Slice_range",
    "Spacing_mm_px_",
    "Train_Val_Test",
)
SPLITS: Final = {"1": "train", "2": "val", "3": "test"}
FAR_SLICES: Final = 8  # between two lesions whose order along the body is compared
FAR: Final = 0.01  # of the body, by the normalised location


@dataclass(frozen=True, slots=True)
class Lesion:
    """One row of the table.

    Attributes:
        number: of the row, from 0; the labels refer to it.
        series: folder of its images, e.g. ``000001_01_01``.
        patient: index of the patient.
        key_slice: number of the image on which it was measured.
        box: around the measured axes, with `training.deeplesion.matching.PADDING_PX` on each side.
        height: normalised location along the body; it grows from the head to the feet.
        noisy: the data set's authors call the annotation possibly noisy.
        first, last: numbers of the images that the data set holds around it.
        spacing: (slice, row, column) distances in mm; the slice distance is NaN or negative where it is not known.
        split: part of the data set: train, val or test.
    """

    number: int
    series: str
    patient: int
    key_slice: int
    box: Rectangle
    height: float
    noisy: bool
    first: int
    last: int
    spacing: tuple[float, float, float]
    split: str


def read_table(path: Path) -> list[Lesion]:
    """Read all rows.

    Raises:
        DeepLesionError: the file cannot be read, lacks a column, or a cell does not hold what its column should; names line and column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as source:
            reader = csv.DictReader(source)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DeepLesionError(f"{path} has no column {', '.join(missing)}: give the folder of DeepLesion's DL_info.csv")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DeepLesionError(f"Cannot read {path} ({type(error).__name__}): --data names the folder of DL_info.csv") from error
    return [_lesion(row, number, f"{path}, line {line}") for number, (line, row) in enumerate(rows)]


def _lesion(row: Mapping[str, str | None], number: int, place: str) -> Lesion:
    name = FILE_NAME.fullmatch(_text(row, "File_name"))
    (key_slice,) = _integers(row, "Key_slice_index", 1, place)
    if name is None or int(name["slice"]) != key_slice:
        raise DeepLesionError(f"{place}: File_name is not PATIENT_STUDY_SERIES_SLICE.png with the slice of Key_slice_index")
    split = SPLITS.get(_text(row, "Train_Val_Test"))
    if split is None:
        raise DeepLesionError(f"{place}: Train_Val_Test is not 1, 2 or 3")
    # The coordinates of the file begin at 1.
    left, top, right, bottom = (value - 1 for value in _numbers(row, "Bounding_boxes", 4, place))
    if not (left < right and top < bottom):
        raise DeepLesionError(f"{place}: Bounding_boxes is not left, top, right, bottom")
    first, last = _integers(row, "Slice_range", 2, place)
    column, line, interval = _numbers(row, "Spacing_mm_px_", 3, place)
    if not (column > 0 and line > 0):
        raise DeepLesionError(f"{place}: Spacing_mm_px_ holds a pixel spacing that is not positive")
    return Lesion(
        number=number,
        series=name["series"],
        patient=_integers(row, "Patient_index", 1, place)[0],
        key_slice=key_slice,
        box=(left, top, right, bottom),
        height=_numbers(row, "Normalized_lesion_location", 3, place)[2],
        noisy=_numbers(row, "Possibly_noisy", 1, place)[0] > 0,
        first=first,
        last=last,
        spacing=(interval, line, column),
        split=split,
    )


def _text(row: Mapping[str, str | None], column: str) -> str:
    return (row[column] or "").strip()


def _numbers(row: Mapping[str, str | None], column: str, count: int, place: str) -> list[float]:
    try:
        values = [float(value) for value in _text(row, column).split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise DeepLesionError(f"{place}: {column} does not hold {count} number{'s' if count > 1 else ''}")
    return values


def _integers(row: Mapping[str, str | None], column: str, count: int, place: str) -> list[int]:
    values = _numbers(row, column, count, place)
    if not all(value.is_integer() for value in values):
        raise DeepLesionError(f"{place}: {column} does not hold an integer")
    return [int(value) for value in values]


def against_order(lesions: Iterable[Lesion], *, head_first: bool) -> tuple[int, int]:
    """Return how many series have lesions whose location along the body contradicts the order of slices, and how many have lesions far apart.

    Lesions are far apart when they are at least `FAR_SLICES` slices and more than `FAR` of the body apart.
    """
    series: dict[str, list[Lesion]] = {}
    for lesion in lesions:
        series.setdefault(lesion.series, []).append(lesion)
    verdicts = [_contradicts(group, head_first=head_first) for group in series.values()]
    return sum(verdict is True for verdict in verdicts), sum(verdict is not None for verdict in verdicts)


def _contradicts(lesions: Sequence[Lesion], *, head_first: bool) -> bool | None:
    pairs = [
        (one.height < other.height) == (one.key_slice < other.key_slice)
        for one, other in combinations(lesions, 2)
        if abs(one.key_slice - other.key_slice) >= FAR_SLICES and abs(one.height - other.height) > FAR
    ]
    return any(towards_feet != head_first for towards_feet in pairs) if pairs else None
