"""The answer as Basic Text SR (PS3.3 A.35.1): sentences only, for whoever reads no other kind of report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.uid import BasicTextSRStorage

from alnnode.records import ObjectRole
from alnnode.report import modules
from alnnode.report.sr import documents
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    from alnnode.records import Analysis, ReportContext, ResultObject


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return one report in words, whatever came out of the analysis, with a reference to the image that it is about."""
    image = modules.main_image(analysis)
    root, findings = documents.text_root(analysis, context.station)
    findings.ContentSequence.append(documents.source_reference(image))
    made = documents.document(
        context,
        content=root,
        evidence=[image],
        series_uid=result_uid(analysis, context, "text", "series"),
        instance_uid=result_uid(analysis, context, "text", "instance"),
        series_number=modules.series_number(analysis, ObjectRole.TEXT),
    )
    made.SOPClassUID = BasicTextSRStorage
    made.ContentTemplateSequence = [documents.template("2000")]
    return [modules.finish(made, analysis, context, ObjectRole.TEXT)]
