"""Result objects: one module per kind. Read only records; no clock, no randomness, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.errors import ReportError
from alnnode.records import ObjectRole
from alnnode.report.capture import secondary_capture
from alnnode.report.objects import (
    encapsulated_pdf,
    key_objects,
    parametric_map,
    presentation_state,
    rejection_note,
    segmentation,
)
from alnnode.report.sr import basic_text, measurement_report, results_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from alnnode.records import Analysis, ReportContext, ResultObject

# Made when a site asks for them, in this order.
KINDS: dict[ObjectRole, Callable[[Analysis, ReportContext], list[ResultObject]]] = {
    ObjectRole.SEGMENTATION: segmentation.build,
    ObjectRole.PARAMETRIC_MAP: parametric_map.build,
    ObjectRole.KEY_OBJECTS: key_objects.build,
    ObjectRole.PRESENTATION_STATE: presentation_state.build,
    ObjectRole.TEXT: basic_text.build,
    ObjectRole.PDF: encapsulated_pdf.build,
}


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return the result objects of an analysis: the report, the captures (none without a volume), and what the options ask for.

    The same analysis and context give the same bytes.

    Raises:
        ReportError: a probability is not a number from 0 to 1, or the source has no UID that a result could refer to.
    """
    for finding in analysis.findings:
        if not all(0 <= p <= 1 for p in (finding.prediction.probability, *finding.prediction.members.values())):
            raise ReportError(f"node {finding.node.number}: a probability is not a number from 0 to 1")
    captures = secondary_capture.build(analysis, context)
    made = [measurement_report.build(analysis, context, captures), *captures]
    for role, build_kind in KINDS.items():
        if role in context.options.kinds:
            made += build_kind(analysis, context)
    if ObjectRole.RESULTS_TREE in context.options.kinds:
        made += results_tree.build(analysis, context, made)
    if ObjectRole.REJECTION in context.options.kinds:
        made += rejection_note.build(analysis, context)
    return made
