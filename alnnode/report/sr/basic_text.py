"""The answer as Basic Text SR (PS3.3 A.35.1): sentences, for systems that display no other kind of report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.sr.coding import Code
from pydicom.uid import BasicTextSRStorage

from alnnode.records import ObjectRole
from alnnode.report import codes
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.series_naming import series_number
from alnnode.report.source_images import main_image
from alnnode.report.sr import documents, references, roots
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    from alnnode.records import Analysis, ReportContext, ResultObject

KIND = ObjectKind(ObjectRole.TEXT, "text", 9, ObjectNature.DOCUMENT, Code("RESULT-TEXT", codes.SCHEME, "Report in words"))


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return one text report for any result of the analysis, with a reference to one source image."""
    image = main_image(analysis)
    root, findings = roots.text_root(analysis, context.station)
    findings.ContentSequence.append(references.source_reference(image))
    made = documents.document(
        context,
        content=root,
        evidence=[image],
        series_uid=result_uid(analysis, context, "text", "series"),
        instance_uid=result_uid(analysis, context, "text", "instance"),
        series_number=series_number(analysis, KIND),
    )
    made.SOPClassUID = BasicTextSRStorage
    made.ContentTemplateSequence = [documents.template("2000")]
    return [finish(made, analysis, context, KIND)]
