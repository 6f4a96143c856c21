"""What is wrong with the table of a cohort, row by row, before any pixel is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from training.clinical.table import BENIGN, LABELS, MALIGNANT, TEST, NodeRow, Problem, TableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from training.clinical.folder import Folder, Series

SAME_NODE: Final = 0.5  # of both boxes
NEAR: Final = 2  # slices
NEAR_MM: Final = 10.0  # as of contours, `alnnode.locate.marks.placing.MAX_GAP_MM`
SHOWN: Final = 20  # problems in an error message

Rows = dict[int, NodeRow]


def problems(rows: Rows, folder: Folder, *, by_patient_id: bool = True) -> list[Problem]:
    """Return everything that is wrong with the rows, in their order.

    Args:
        rows: by number.
        folder: where the images lie.
        by_patient_id: also compare the images' own Patient ID; False where de-identification gave everybody the same.
    """
    found = [problem for number, row in rows.items() for problem in _alone(number, row, folder)]
    found += _patients(rows, folder, by_patient_id)
    found += _parts(rows)
    found += _doubles(rows, folder)
    return sorted(found, key=lambda problem: problem.row)


def warnings(rows: Rows, folder: Folder) -> list[Problem]:
    """Return the rows that may be of one node: their boxes overlap, and lie further apart than `NEAR` slices, and no more than `NEAR_MM`.

    Lymph nodes do lie so above each other, so such a table is not refused. Rows that both say how far they reach are known to be whole nodes.
    """
    found = []
    for uid, numbers in _by_series(rows).items():
        series = folder.series.get(uid)
        for place, second in enumerate(numbers):
            said = (_maybe_double(first, second, rows, series) for first in numbers[:place] if series)
            if problem := next(filter(None, said), None):
                found.append(problem)
    return sorted(found, key=lambda problem: problem.row)


def refuse(found: Sequence[Problem], what: str) -> None:
    """Raise when anything is wrong.

    Raises:
        TableError: names the rows.
    """
    if found:
        lines = [str(problem) for problem in found[:SHOWN]]
        more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise TableError("\n".join([f"{what}: {len(found)} problem(s)", *lines, *more]))


def both_classes(rows: Mapping[int, NodeRow], what: str) -> None:
    """Raise when the labelled rows are not of both classes: there is nothing to tell apart.

    Raises:
        TableError: says how many there are of each.
    """
    labels = [row.label for row in labelled(rows).values()]
    benign, malignant = labels.count(BENIGN), labels.count(MALIGNANT)
    if not (benign and malignant):
        raise TableError(f"{what}: {benign} nodes are benign and {malignant} malignant: label nodes of both classes")


def labelled(rows: Mapping[int, NodeRow]) -> Rows:
    """Return the rows that have a label; the others are not trained on."""
    return {number: row for number, row in rows.items() if row.label in LABELS}


def _alone(number: int, row: NodeRow, folder: Folder) -> Iterator[Problem]:
    series = folder.series.get(row.series_uid)
    if series is None:
        yield Problem(
            number, "series_uid", "no image of this series is in the folder", "add its DICOM files, or correct the UID"
        )
        return
    if not series.is_ct:
        kind = series.modality if series.modality.isalpha() else "another kind"
        yield Problem(number, "series_uid", f"the series is {kind}, not CT", "name the CT series on which the node was marked")
        return
    if row.study_uid and row.study_uid != series.study_uid:
        yield Problem(number, "study_uid", "the series belongs to another study", "correct it, or leave it empty")
    image = series.images.get(row.sop_uid)
    if image is None:
        yield Problem(number, "sop_uid", "the series has no such image", "name the slice with the node's largest section")
        return
    if (row.frame is None) != (image.frames == 1) or (row.frame or 1) > image.frames:
        advice = f"write 1 to {image.frames}" if image.frames > 1 else "leave it empty: the image has one frame"
        yield Problem(number, "frame", "the image has no such frame", advice)
    for low, high, limit, names in (
        (row.left, row.right, image.columns, ("left", "right")),
        (row.top, row.bottom, image.rows, ("top", "bottom")),
    ):
        if high <= low:
            yield Problem(number, names[1], f"is not above {names[0]}", "a box has at least one pixel; are they swapped?")
        elif low < 0 or high > limit:
            advice = f"image coordinates run from 0 to {limit}; is the box in millimetres, or of another image?"
            yield Problem(number, names[0] if low < 0 else names[1], "the box lies outside the image", advice)


def _patients(rows: Rows, folder: Folder, by_patient_id: bool) -> Iterator[Problem]:
    """Yield the rows whose patient has another name elsewhere: the same study, or the same Patient ID in the images."""
    names: dict[tuple[str, str], tuple[str, int]] = {}
    for number, row in rows.items():
        series = folder.series.get(row.series_uid)
        keys = [("study", series.study_uid if series else row.study_uid)]
        if series and by_patient_id:
            keys.append(("Patient ID", series.patient_id))
        for kind, value in keys:
            if not value:
                continue
            name, first = names.setdefault((kind, value), (row.patient, number))
            if name != row.patient:
                advice = "give both the same name: a patient in two parts of the data makes figures too good"
                if kind != "study":
                    advice += "; where all images were given one Patient ID, use --ignore-patient-id"
                yield Problem(number, "patient", f"row {first} gives the patient of the same {kind} another name", advice)
                break


def _parts(rows: Rows) -> Iterator[Problem]:
    tested = {row.patient for row in rows.values() if row.part == TEST}
    for number, row in rows.items():
        if row.patient in tested and row.part != TEST:
            yield Problem(
                number, "part", "other nodes of this patient are kept for the test", "write test for all or none of them"
            )


def _by_series(rows: Rows) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, row in rows.items():
        found.setdefault(row.series_uid, []).append(number)
    return found


def _doubles(rows: Rows, folder: Folder) -> Iterator[Problem]:
    for uid, numbers in _by_series(rows).items():
        series = folder.series.get(uid)
        for place, second in enumerate(numbers):
            found = (_double(first, second, rows, series) for first in numbers[:place])
            # One line for each row: what it doubles may be doubled itself.
            if problem := next(filter(None, found), None):
                yield problem


def _double(first: int, second: int, rows: Rows, series: Series | None) -> Problem | None:
    one, other = rows[first], rows[second]
    same_slice = (one.sop_uid, one.frame) == (other.sop_uid, other.frame)
    if same_slice and overlap(one, other) > SAME_NODE:
        return Problem(second, "sop_uid", f"is the node of row {first} again", "remove one of both")
    places = [series.slice_of(row.sop_uid, row.frame) for row in (one, other)] if series else [None]
    near = None not in places and abs(places[0] - places[1]) <= NEAR  # type: ignore[operator]  # neither is None
    alike = overlap(one, other, of_smaller=True) > SAME_NODE
    told_apart = bool(one.tracking_uid and other.tracking_uid) and one.tracking_uid != other.tracking_uid
    if near and alike and told_apart:
        return Problem(second, "sop_uid", f"is the node of row {first} again, on a slice beside it", "remove one of both")
    if (one.tracking_uid and one.tracking_uid == other.tracking_uid) or (near and alike):
        advice = "keep the row of its largest section and count the other slices in below and above, or use `import table`"
        return Problem(second, "sop_uid", f"is another slice of the node of row {first}", advice)
    return None


def _maybe_double(first: int, second: int, rows: Rows, series: Series) -> Problem | None:
    one, other = rows[first], rows[second]
    told_apart = bool(one.tracking_uid and other.tracking_uid)  # one UID for both is a problem, not a warning
    whole = all(row.below or row.above for row in (one, other))
    apart = apart_mm(one, other, series)
    if told_apart or whole or apart is None or apart > NEAR_MM or overlap(one, other, of_smaller=True) <= SAME_NODE:
        return None
    if _double(first, second, rows, series):
        return None
    advice = "keep the row of its largest section and count the other slices in below and above; two nodes: give each a tracking_uid of its own"
    return Problem(second, "sop_uid", f"may be the node of row {first}, {apart:.0f} mm from it", advice)


def apart_mm(one: NodeRow, other: NodeRow, series: Series) -> float | None:
    """Return how far the slices of two rows lie from each other, mm; None where the header does not tell."""
    heights = [series.height_of(row.sop_uid, row.frame) for row in (one, other)]
    return None if heights[0] is None or heights[1] is None else abs(heights[0] - heights[1])


def overlap(one: NodeRow, other: NodeRow, *, of_smaller: bool = False) -> float:
    """Return what two boxes share, looked at along the body: of the union of both, or of the smaller (a node tapers from slice to slice)."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(row.right - row.left) * (row.bottom - row.top) for row in (one, other)]
    return width * height / (min(areas) if of_smaller else sum(areas) - width * height)
