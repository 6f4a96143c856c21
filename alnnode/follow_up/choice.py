"""Which prior report a series is compared with."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import Dataset

    from alnnode.records.comparison import PriorReport


def study_date(header: Dataset) -> date | None:
    """Return the Study Date; None when it is missing or malformed."""
    try:
        return datetime.strptime(str(header.get("StudyDate") or ""), "%Y%m%d").date()  # noqa: DTZ007 - a DA has no zone
    except ValueError:
        return None


def not_comparable(header: Dataset | None) -> str | None:
    """Return why a series can be compared with no report, for its own report; None when it can, or when its header could not be read.

    Without Patient ID the earlier reports of the patient are unknown. Without Study Date it is unknown which reports are earlier: no other
    date stands in for it, because the reports of alnnode are ordered by it too.
    """
    if header is None:
        return None
    if not str(header.get("PatientID") or "").strip():
        return "the images have no Patient ID"
    return "the images have no valid Study Date" if study_date(header) is None else None


def slice_thickness_mm(header: Dataset) -> float:
    """Return the Slice Thickness, mm; 0 when it is missing, malformed or out of range."""
    try:
        value = float(header.get("SliceThickness") or 0)
    except (ArithmeticError, TypeError, ValueError):
        return 0.0
    return value if 0 < value < 1000 else 0.0


def choose_prior(known: Iterable[PriorReport], study_uid: str, today: date, slice_mm: float) -> PriorReport | None:
    """Return the report to compare a series with; None when there is none.

    It belongs to the most recent earlier study; of that study, to the series with the most similar distance between slices; of that
    series, it is the newest report. Later studies never count, so that a repeated analysis gives the same result. Nor do reports that
    another report of their study supersedes.

    Args:
        known: reports of the patient, in any order.
        study_uid: Study Instance UID of the series.
        today: Study Date of the series.
        slice_mm: Slice Thickness of the series, mm.
    """
    before = [prior for prior in known if prior.study_date < today and prior.study_instance_uid != study_uid]
    superseded = {(prior.study_instance_uid, uid) for prior in before for uid in prior.supersedes}
    return max(
        (prior for prior in before if (prior.study_instance_uid, prior.sop_instance_uid) not in superseded),
        key=lambda prior: (prior.study_date, -abs(prior.record.slice_mm - slice_mm), prior.made, prior.sop_instance_uid),
        default=None,
    )
