"""Check the table of a cohort row by row, before any pixel data are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from training.clinical.node_table import BENIGN, LABELS, MALIGNANT, TEST, NodeRow, Problem, TableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from training.clinical.dicom_folder import DicomFolder, ImageSeries

SAME_NODE: Final = 0.5  # overlap of two boxes above which they belong to one node
NEAR: Final = 2  # slices between two boxes of one node
NEAR_MM: Final = 10.0  # as for contours (`alnnode.locate.marks.placing.MAX_GAP_MM`)
SHOWN: Final = 20  # problems in an error message

Rows = dict[int, NodeRow]


def table_problems(rows: Rows, folder: DicomFolder, *, by_patient_id: bool = True) -> list[Problem]:
    """Return all problems of the rows, in the order of the rows.

    Args:
        rows: by number.
        folder: the DICOM files.
        by_patient_id: also compare the Patient ID of the images; False if de-identification gave all patients the same.
    """
    found = [problem for number, row in rows.items() for problem in _alone(number, row, folder)]
    found += _patients(rows, folder, by_patient_id)
    found += _parts(rows)
    found += _duplicates(rows, folder)
    return sorted(found, key=lambda problem: problem.row)


def table_warnings(rows: Rows, folder: DicomFolder) -> list[Problem]:
    """Return the rows that may belong to one node: their boxes overlap and are more than `NEAR` slices but at most `NEAR_MM` apart.

    Two lymph nodes can lie above each other in this way, so such a table is not refused. Two rows that both give their extent in slices are
    complete nodes, so they cause no warning.
    """
    found = []
    for uid, numbers in _by_series(rows).items():
        series = folder.series.get(uid)
        for place, second in enumerate(numbers):
            found_here = (_possible_duplicate(first, second, rows, series) for first in numbers[:place] if series)
            if problem := next(filter(None, found_here), None):
                found.append(problem)
    return sorted(found, key=lambda problem: problem.row)


def refuse_problems(found: Sequence[Problem], what: str) -> None:
    """Raise an error if there are problems.

    Raises:
        TableError: there are problems; the message names the rows.
    """
    if found:
        lines = [str(problem) for problem in found[:SHOWN]]
        more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise TableError("\n".join([f"{what}: {len(found)} problem(s)", *lines, *more]))


def require_both_classes(rows: Mapping[int, NodeRow], what: str) -> None:
    """Raise an error unless the labelled rows contain both classes.

    Raises:
        TableError: a class is missing; the message gives the number of each class.
    """
    labels = [row.label for row in labelled_rows(rows).values()]
    benign, malignant = labels.count(BENIGN), labels.count(MALIGNANT)
    if not (benign and malignant):
        raise TableError(f"{what}: {benign} nodes are benign and {malignant} malignant: label nodes of both classes")


def labelled_rows(rows: Mapping[int, NodeRow]) -> Rows:
    """Return the rows that have a label; other rows are not used."""
    return {number: row for number, row in rows.items() if row.label in LABELS}


def _alone(number: int, row: NodeRow, folder: DicomFolder) -> Iterator[Problem]:
    series = folder.series.get(row.series_uid)
    if series is None:
        yield Problem(number, "series_uid", "the folder has no image of this series", "add its DICOM files, or correct the UID")
        return
    if not series.is_ct:
        kind = series.modality if series.modality.isalpha() else "another kind"
        yield Problem(
            number, "series_uid", f"the series is {kind}, not CT", "give the UID of the CT series on which the node was marked"
        )
        return
    if row.study_uid and row.study_uid != series.study_uid:
        yield Problem(number, "study_uid", "the series belongs to another study", "correct the UID, or leave it empty")
    image = series.images.get(row.sop_uid)
    if image is None:
        yield Problem(
            number,
            "sop_uid",
            "the series has no such image",
            "give the UID of the slice with the largest cross-section of the node",
        )
        return
    if (row.frame is None) != (image.frames == 1) or (row.frame or 1) > image.frames:
        advice = f"write 1 to {image.frames}" if image.frames > 1 else "leave it empty, because the image has one frame"
        yield Problem(number, "frame", "the image has no such frame", advice)
    for low, high, limit, names in (
        (row.left, row.right, image.columns, ("left", "right")),
        (row.top, row.bottom, image.rows, ("top", "bottom")),
    ):
        if high <= low:
            yield Problem(
                number,
                names[1],
                f"is not greater than {names[0]}",
                "a box has at least one pixel; check whether the two values are swapped",
            )
        elif low < 0 or high > limit:
            advice = (
                f"image coordinates run from 0 to {limit}; check whether the box is in millimetres or belongs to another image"
            )
            yield Problem(number, names[0] if low < 0 else names[1], "the box lies outside the image", advice)


def _patients(rows: Rows, folder: DicomFolder, by_patient_id: bool) -> Iterator[Problem]:
    """Yield the rows whose patient has another name in a row of the same study or of the same Patient ID in the images."""
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
                advice = "give both rows the same name, because a patient in two parts of the data makes the results optimistic"
                if kind != "study":
                    advice += "; if de-identification gave all images one Patient ID, use --ignore-patient-id"
                yield Problem(number, "patient", f"row {first} has another name for the patient of the same {kind}", advice)
                break


def _parts(rows: Rows) -> Iterator[Problem]:
    tested = {row.patient for row in rows.values() if row.part == TEST}
    for number, row in rows.items():
        if row.patient in tested and row.part != TEST:
            yield Problem(
                number,
                "part",
                "other nodes of this patient are reserved for the test",
                "write test for all nodes of the patient or for none",
            )


def _by_series(rows: Rows) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, row in rows.items():
        found.setdefault(row.series_uid, []).append(number)
    return found


def _duplicates(rows: Rows, folder: DicomFolder) -> Iterator[Problem]:
    for uid, numbers in _by_series(rows).items():
        series = folder.series.get(uid)
        for place, second in enumerate(numbers):
            found = (_duplicate(first, second, rows, series) for first in numbers[:place])
            # One problem for each row, because the row that it duplicates may itself be a duplicate.
            if problem := next(filter(None, found), None):
                yield problem


def _duplicate(first: int, second: int, rows: Rows, series: ImageSeries | None) -> Problem | None:
    one, other = rows[first], rows[second]
    same_slice = (one.sop_uid, one.frame) == (other.sop_uid, other.frame)
    if same_slice and box_overlap(one, other) > SAME_NODE:
        return Problem(second, "sop_uid", f"is a duplicate of the node in row {first}", "remove one of the two rows")
    places = [series.slice_of(row.sop_uid, row.frame) for row in (one, other)] if series else [None]
    near = None not in places and abs(places[0] - places[1]) <= NEAR  # type: ignore[operator]  # neither is None
    alike = box_overlap(one, other, of_smaller=True) > SAME_NODE
    tracked_apart = bool(one.tracking_uid and other.tracking_uid) and one.tracking_uid != other.tracking_uid
    if near and alike and tracked_apart:
        return Problem(
            second, "sop_uid", f"is a duplicate of the node in row {first} on a nearby slice", "remove one of the two rows"
        )
    if (one.tracking_uid and one.tracking_uid == other.tracking_uid) or (near and alike):
        advice = (
            "keep the row of the largest cross-section and count the other slices in below and above, or use `import table`"
        )
        return Problem(second, "sop_uid", f"is another slice of the node in row {first}", advice)
    return None


def _possible_duplicate(first: int, second: int, rows: Rows, series: ImageSeries) -> Problem | None:
    one, other = rows[first], rows[second]
    tracked_apart = bool(one.tracking_uid and other.tracking_uid)  # rows with the same UID are a problem, not a warning
    complete = all(row.below or row.above for row in (one, other))
    apart = slice_distance_mm(one, other, series)
    if tracked_apart or complete or apart is None or apart > NEAR_MM or box_overlap(one, other, of_smaller=True) <= SAME_NODE:
        return None
    if _duplicate(first, second, rows, series):
        return None
    advice = "if so, keep the row of the largest cross-section and count the other slices in below and above; if not, give each node its own tracking_uid"
    return Problem(second, "sop_uid", f"may be the node in row {first}, {apart:.0f} mm away", advice)


def slice_distance_mm(one: NodeRow, other: NodeRow, series: ImageSeries) -> float | None:
    """Return the distance between the slices of two rows in mm; None if a header has no position."""
    heights = [series.height_of(row.sop_uid, row.frame) for row in (one, other)]
    return None if heights[0] is None or heights[1] is None else abs(heights[0] - heights[1])


def box_overlap(one: NodeRow, other: NodeRow, *, of_smaller: bool = False) -> float:
    """Return the overlap of two boxes in the image plane as a share of their union, or of the smaller box (a node tapers along its slices)."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(row.right - row.left) * (row.bottom - row.top) for row in (one, other)]
    return width * height / (min(areas) if of_smaller else sum(areas) - width * height)
