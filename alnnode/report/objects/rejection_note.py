"""Rejection note: a Key Object Selection that withdraws the results that these replace (IHE IOCM, RAD TF-2 4.66; PS3.16 TID 2010)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import CodeContentItem, CodedConcept, RelationshipTypeValues

from alnnode.records import ObjectRole
from alnnode.report import codes, modules
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.series_naming import series_number
from alnnode.report.sr import documents, references
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydicom import Dataset

    from alnnode.records import Analysis, ReportContext, ResultObject, ResultReference

KIND = ObjectKind(ObjectRole.REJECTION, "replaced", 11, ObjectNature.DOCUMENT)


def build(analysis: Analysis, context: ReportContext, images: Collection[ObjectRole]) -> list[ResultObject]:
    """Return the note on the results that this report replaces; nothing where it replaces none."""
    if not context.superseded:
        return []
    objects = [_stand_in(item, images) for item in context.superseded]
    content = KeyObjectSelection(
        document_title=codes.REJECTED_FOR_QUALITY,
        referenced_objects=objects,
        observer_device_context=documents.device_observer(analysis, context.station),
        description="Results of an earlier analysis of this series. They are replaced by those that came with this note.",
    )
    # TID 2010 row 3: with this title the reason is required, of CID 7011, and stands before all else.
    reason = CodeContentItem(
        name=CodedConcept.from_code(codes.TITLE_MODIFIER),
        value=CodedConcept.from_code(codes.OTHER_FAILURE),
        relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
    )
    content[0].ContentSequence.insert(0, reason)
    document = KeyObjectSelectionDocument(
        evidence=objects,
        content=content,
        series_instance_uid=result_uid(analysis, context, "reject", "series"),
        series_number=series_number(analysis, KIND),
        sop_instance_uid=result_uid(analysis, context, "reject", "instance"),
        instance_number=1,
        manufacturer=modules.MANUFACTURER,
    )
    documents.delete_purposes(document)
    modules.delete_contributing_equipment(document)
    return [finish(document, analysis, context, KIND)]


def _stand_in(item: ResultReference, images: Collection[ObjectRole]) -> Dataset:
    made = references.evidence(item.study_instance_uid, item.series_instance_uid, item.sop_class_uid, item.sop_instance_uid)
    if item.role in images:
        made.Rows = made.Columns = 1  # tells the library to refer to it as to an image; written nowhere
    return made
