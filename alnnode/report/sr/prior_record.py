"""The record for later comparisons in a report: a private element (PS3.5 7.8), which viewers do not show and templates allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydicom.sequence import Sequence

from alnnode.follow_up.choice import study_date
from alnnode.follow_up.node_centre import node_centre
from alnnode.records.comparison import ComparisonRecord, PriorNode, PriorReport
from alnnode.report.times import content_moment
from alnnode.report.uids import tracking_uid

if TYPE_CHECKING:
    from pydicom import Dataset

    from alnnode.records import Analysis

GROUP, CREATOR, ELEMENT = 0x0099, "ALNNODE FOLLOW-UP", 0x01
LARGEST = 1 << 20  # largest length of the JSON that is parsed


def write(dataset: Dataset, analysis: Analysis) -> None:
    """Add the record to a report; a series without a chest surface gets none."""
    if analysis.volume is None or not analysis.surface:
        return
    volume = analysis.volume
    record = ComparisonRecord(
        model_digest=analysis.model.digest,
        slice_mm=round(volume.spacing[0], 3),
        surface=analysis.surface,
        covered=tuple(coverage.side for coverage in analysis.coverage if coverage.covered),
        more_found=analysis.more_found,
        nodes=tuple(
            PriorNode(
                tracking_uid=tracking_uid(analysis, finding.node),
                number=finding.node.number,
                side=finding.node.side,
                centre=_rounded(node_centre(volume, finding.node)),
                long_axis_mm=round(finding.node.long_axis.length_mm, 1),
                short_axis_mm=round(finding.node.short_axis.length_mm, 1),
                probability=round(finding.prediction.probability, 4),
            )
            for finding in analysis.findings
        ),
    )
    dataset.private_block(GROUP, CREATOR, create=True).add_new(ELEMENT, "UT", record.model_dump_json())


def _rounded(point: tuple[float, float, float]) -> tuple[float, float, float]:
    return round(point[0], 1), round(point[1], 1), round(point[2], 1)


def read(dataset: Dataset) -> PriorReport | None:
    """Return the record in a report of this or another node; None when it has none, or a malformed one."""
    try:
        value = dataset.private_block(GROUP, CREATOR)[ELEMENT].value
    except KeyError:
        return None
    # An archive that stores in Implicit VR returns a private element as UN.
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    today = study_date(dataset)
    if len(text) > LARGEST or today is None:
        return None
    try:
        return PriorReport(
            sop_class_uid=str(dataset.get("SOPClassUID", "")),
            sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
            series_instance_uid=str(dataset.get("SeriesInstanceUID", "")),
            study_instance_uid=str(dataset.get("StudyInstanceUID", "")),
            study_date=today,
            record=ComparisonRecord.model_validate_json(text),
            made=content_moment(dataset),
            supersedes=_superseded(dataset),
        )
    except ValidationError:
        return None


def _superseded(dataset: Dataset) -> tuple[str, ...]:
    """Return the SOP Instance UIDs that the Predecessor Documents Sequence names (PS3.3 C.17.2)."""
    return tuple(
        str(instance.get("ReferencedSOPInstanceUID", ""))
        for study in _items(dataset, "PredecessorDocumentsSequence")
        for series in _items(study, "ReferencedSeriesSequence")
        for instance in _items(series, "ReferencedSOPSequence")
    )


def _items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a sequence; none when the element is not a sequence."""
    found = dataset.get(keyword)
    return tuple(found) if isinstance(found, Sequence) else ()
