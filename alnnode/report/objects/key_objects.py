"""Key Object Selection (PS3.3 A.35.4, TID 2010): the slices that a reader should see first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.sr.coding import Code

from alnnode.records import ObjectRole
from alnnode.report import codes, modules, wording
from alnnode.report.ascii_text import ascii_words
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.series_naming import series_number
from alnnode.report.source_images import source_image
from alnnode.report.sr import documents
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    from pydicom import Dataset

    from alnnode.records import Analysis, ReportContext, ResultObject, SliceRef

KIND = ObjectKind(ObjectRole.KEY_OBJECTS, "key images", 6, ObjectNature.DOCUMENT, Code("RESULT-KO", codes.SCHEME, "Key slices"))


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return the slices of the nodes at or above the operating point, most probable first, or that of the most probable node."""
    volume = analysis.volume
    if volume is None or not analysis.findings:
        return []
    ranked = wording.by_probability(analysis.findings)
    chosen = [finding for finding in ranked if finding.suspicious(analysis.model.operating_point)] or ranked[:1]
    slices: dict[tuple[str, int | None], SliceRef] = {}
    for finding in chosen:
        reference = volume.slices[finding.node.slice_index]
        slices.setdefault((reference.sop_instance_uid, reference.frame_number), reference)
    images = [source_image(analysis, reference) for reference in slices.values()]
    said = [analysis.model.banner, *(wording.verdict(finding, analysis) for finding in chosen)]
    content = KeyObjectSelection(
        document_title=codes.OF_INTEREST,
        referenced_objects=images,
        observer_device_context=documents.device_observer(analysis, context.station),
        description=ascii_words("; ".join(said)),
    )
    _add_frame_numbers(content[0], list(slices.values()))
    document = KeyObjectSelectionDocument(
        evidence=list({image.SOPInstanceUID: image for image in images}.values()),
        content=content,
        series_instance_uid=result_uid(analysis, context, "ko", "series"),
        series_number=series_number(analysis, KIND),
        sop_instance_uid=result_uid(analysis, context, "ko", "instance"),
        instance_number=1,
        manufacturer=modules.MANUFACTURER,
    )
    documents.delete_purposes(document)
    modules.delete_contributing_equipment(document)
    return [finish(document, analysis, context, KIND)]


def _add_frame_numbers(root: Dataset, slices: list[SliceRef]) -> None:
    """Add the frame numbers to references to a multi-frame source."""
    images = [item for item in root.ContentSequence if item.ValueType == "IMAGE"]
    for item, reference in zip(images, slices, strict=True):
        if reference.frame_number is not None:
            item.ReferencedSOPSequence[0].ReferencedFrameNumber = [reference.frame_number]
