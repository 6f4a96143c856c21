"""The root of the results tree (IHE AI Results): a short text report that references every other result object.

Its root is not an Imaging Measurement Report: one without measurements ends the image view of a common viewer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.records import ObjectRole
from alnnode.report import documents, modules
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import Analysis, ReportContext, ResultObject


def build(analysis: Analysis, context: ReportContext, results: Sequence[ResultObject]) -> list[ResultObject]:
    """Return the report that names the others, in their order."""
    root, findings = documents.text_root(analysis, context.station)
    for item in results:
        findings.ContentSequence.append(documents.reference(item))
    made = documents.document(
        context,
        content=root,
        evidence=[documents.stand_in(item) for item in results],
        series_uid=result_uid(analysis, context, "tree", "series"),
        instance_uid=result_uid(analysis, context, "tree", "instance"),
        series_number=modules.series_number(analysis, ObjectRole.RESULTS_TREE),
    )
    made.ContentTemplateSequence = [documents.template("2000")]
    return [modules.finish(made, analysis, context, ObjectRole.RESULTS_TREE)]
