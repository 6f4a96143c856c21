"""Result objects of an analysis. They depend only on records: no clock, no randomness, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.errors import ReportError
from alnnode.records import ObjectRole
from alnnode.report import kinds
from alnnode.report.capture import secondary_capture
from alnnode.report.objects import rejection_note
from alnnode.report.sr import measurement_report, results_tree

if TYPE_CHECKING:
    from alnnode.records import Analysis, ReportContext, ResultObject


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return the result objects of an analysis: the report, the captures (none without a volume), and the requested kinds.

    The same analysis and context give the same bytes.

    Raises:
        ReportError: a probability is not a number from 0 to 1, or the source has no UID that a result could refer to.
    """
    for finding in analysis.findings:
        if not all(0 <= p <= 1 for p in (finding.prediction.probability, *finding.prediction.members.values())):
            raise ReportError(f"node {finding.node.number}: a probability is not a number from 0 to 1")
    requested = context.options.kinds
    captures = secondary_capture.build(analysis, context)
    built = [measurement_report.build(analysis, context, captures), *captures]
    for module in kinds.REQUESTED:
        if module.KIND.role in requested:
            built += module.build(analysis, context)
    if ObjectRole.RESULTS_TREE in requested:
        by_role = kinds.by_role()
        built += results_tree.build(analysis, context, [(by_role[item.role], item) for item in built])
    if ObjectRole.REJECTION in requested:
        built += rejection_note.build(analysis, context, kinds.image_roles())
    return built
