"""The structured report: Comprehensive SR (PS3.3 A.35.3) after TID 1500, or TID 2000 when there is nothing to measure.

The answer comes first, in words. Then the measurement groups of each node (`node_groups`), most probable first. docs/reporting.md gives
the reason for each item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.sr.coding import Code

from alnnode.records import ObjectRole
from alnnode.report import codes, wording
from alnnode.report.capture import secondary_capture
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.series_naming import series_number
from alnnode.report.source_images import main_image, source_image
from alnnode.report.sr import documents, prior_record, references, roots
from alnnode.report.sr.node_groups import node_groups, referenced_slices
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import Analysis, ReportContext, ResultObject

KIND = ObjectKind(ObjectRole.SR, "report", 1, ObjectNature.DOCUMENT, Code("RESULT-SR", codes.SCHEME, "Measurement report"))


def build(analysis: Analysis, context: ReportContext, captures: Sequence[ResultObject] = ()) -> ResultObject:
    """Return the report for any result of an analysis. It references the captures."""
    if analysis.findings:
        images = _images(analysis)
        content = _measurements(analysis, context, images, captures)
    else:
        images = [main_image(analysis)]
        content = _negative(analysis, context, images[0], captures)
    report = documents.document(
        context,
        content=content,
        evidence=[*images, *(references.stand_in(item) for item in captures), *references.prior_evidence(analysis)],
        series_uid=result_uid(analysis, context, "sr", "series"),
        instance_uid=result_uid(analysis, context, "sr", "instance"),
        series_number=series_number(analysis, KIND),
    )
    if not analysis.findings:
        report.ContentTemplateSequence = [documents.template("2000")]
    if context.predecessor:
        report.PredecessorDocumentsSequence = [_predecessor(context.predecessor)]
    if context.prior is not None:
        prior_record.write(report, analysis)
    return finish(report, analysis, context, KIND)


def _measurements(
    analysis: Analysis, context: ReportContext, images: list[Dataset], captures: Sequence[ResultObject]
) -> Dataset:
    groups = [group for finding in wording.by_probability(analysis.findings) for group in node_groups(finding, analysis)]
    items = [
        *(references.reference(item, secondary_capture.KIND) for item in captures),
        *references.prior_reference(analysis),
    ]
    return roots.measurement_report(analysis, context.station, images, groups, items)


def _images(analysis: Analysis) -> list[Dataset]:
    """Return each referenced source image once, in the order of the volume."""
    found: dict[str, Dataset] = {}
    for reference in referenced_slices(analysis):
        if reference.sop_instance_uid not in found:
            found[reference.sop_instance_uid] = source_image(analysis, reference)
    return list(found.values())


def _negative(analysis: Analysis, context: ReportContext, image: Dataset, captures: Sequence[ResultObject]) -> Dataset:
    """Return a text report about one image: OHIF closes the image view on a TID 1500 report without measurements."""
    root, findings = roots.text_root(analysis, context.station)
    findings.ContentSequence.append(references.source_reference(image))
    for item in captures:
        findings.ContentSequence.append(references.reference(item, secondary_capture.KIND))
    findings.ContentSequence.extend(references.prior_reference(analysis))
    return root


def _predecessor(identity: tuple[str, str, str, str]) -> Dataset:
    """Return an item of the Predecessor Documents Sequence (PS3.3 C.17.2)."""
    sop_class, sop_instance, series, study = identity
    instance, of_series, of_study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = sop_class, sop_instance
    of_series.SeriesInstanceUID, of_series.ReferencedSOPSequence = series, [instance]
    of_study.StudyInstanceUID, of_study.ReferencedSeriesSequence = study, [of_series]
    return of_study
