"""References of a structured report to other objects, and the data sets that its evidence lists them by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import CompositeContentItem, ContentItem, ImageContentItem, RelationshipTypeValues
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard

from alnnode.errors import ReportError
from alnnode.report import codes
from alnnode.report.object_kind import ObjectNature
from alnnode.report.source_attributes import REQUIRED

if TYPE_CHECKING:
    from alnnode.records import Analysis, ResultObject
    from alnnode.records.comparison import PriorReport
    from alnnode.report.object_kind import ObjectKind

CONTAINS = RelationshipTypeValues.CONTAINS


def reference(item: ResultObject, kind: ObjectKind) -> ContentItem:
    """Return the item that refers to another result object.

    Raises:
        ReportError: the kind has no concept name.
    """
    if kind.code is None:
        raise ReportError(f"{item.role.value}: this kind of object has no concept name that a report could refer to it by")
    content_item = ImageContentItem if kind.nature is ObjectNature.IMAGE else CompositeContentItem
    return content_item(
        name=kind.code,
        referenced_sop_class_uid=item.sop_class_uid,
        referenced_sop_instance_uid=item.sop_instance_uid,
        relationship_type=CONTAINS,
    )


def source_reference(image: Dataset) -> ContentItem:
    """Return the item that refers to the source image of a text report."""
    return ImageContentItem(
        name=standard.DCM.SourceImage,
        referenced_sop_class_uid=image.SOPClassUID,
        referenced_sop_instance_uid=image.SOPInstanceUID,
        relationship_type=CONTAINS,
    )


def prior_reference(analysis: Analysis) -> list[ContentItem]:
    """Return the item that refers to the prior report of a comparison; none without one."""
    return [
        CompositeContentItem(
            name=codes.PRIOR_REPORT,
            referenced_sop_class_uid=prior.sop_class_uid,
            referenced_sop_instance_uid=prior.sop_instance_uid,
            relationship_type=CONTAINS,
        )
        for prior in _priors(analysis)
    ]


def prior_evidence(analysis: Analysis) -> list[Dataset]:
    """Return the evidence item of the prior report. It is of another study, so it goes to the Pertinent Other Evidence (PS3.3 C.17.2)."""
    return [
        evidence(prior.study_instance_uid, prior.series_instance_uid, prior.sop_class_uid, prior.sop_instance_uid)
        for prior in _priors(analysis)
    ]


def _priors(analysis: Analysis) -> list[PriorReport]:
    comparison = analysis.comparison
    return [] if comparison is None or comparison.prior is None else [comparison.prior]


def stand_in(item: ResultObject) -> Dataset:
    """Return the data set that stands for another result object in the evidence."""
    return evidence(item.study_instance_uid, item.series_instance_uid, item.sop_class_uid, item.sop_instance_uid)


def evidence(study: str, series: str, sop_class: str, sop_instance: str) -> Dataset:
    """Return the data set that stands for an object in the evidence."""
    made = Dataset()
    for keyword in REQUIRED:
        setattr(made, keyword, None)
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    made.SOPClassUID, made.SOPInstanceUID = sop_class, sop_instance
    return made
