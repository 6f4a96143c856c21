"""The root of the results tree (IHE AI Results): a short text report that references every other result object.

Its root is an Imaging Measurement Report only with ``profile = "air"`` (IHE AI Results), because OHIF closes the image view on one without
measurements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.records import ObjectRole
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.series_naming import series_number
from alnnode.report.source_images import main_image
from alnnode.report.sr import documents, references, roots
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import Analysis, ReportContext, ResultObject

KIND = ObjectKind(ObjectRole.RESULTS_TREE, "list", 8, ObjectNature.DOCUMENT)


def build(analysis: Analysis, context: ReportContext, results: Sequence[tuple[ObjectKind, ResultObject]]) -> list[ResultObject]:
    """Return the report that references the others, in their order: TID 2000, or TID 1500 for IHE AI Results."""
    items = [references.reference(item, kind) for kind, item in results]
    evidence = [references.stand_in(item) for _, item in results]
    if context.options.measurement_root:
        # A series without volume has no geometry for the image library (TID 1600, optional in TID 1500).
        images = [] if analysis.volume is None else [main_image(analysis)]
        content = roots.measurement_report(analysis, context.station, images, [], items)
        evidence = [*images, *evidence]
    else:
        content, findings = roots.text_root(analysis, context.station)
        findings.ContentSequence.extend(items)
    made = documents.document(
        context,
        content=content,
        evidence=evidence,
        series_uid=result_uid(analysis, context, "tree", "series"),
        instance_uid=result_uid(analysis, context, "tree", "instance"),
        series_number=series_number(analysis, KIND),
    )
    if not context.options.measurement_root:
        made.ContentTemplateSequence = [documents.template("2000")]
    return [finish(made, analysis, context, KIND)]
