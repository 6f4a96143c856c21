"""Result objects: one module per kind. Read only records; no clock, no randomness, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.errors import ReportError
from alnnode.report import capture, sr

if TYPE_CHECKING:
    from alnnode.records import Analysis, ReportContext, ResultObject


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return the result objects of an analysis: the report first, then the captures (none without a volume).

    The same analysis and context give the same bytes.

    Raises:
        ReportError: a probability is not a number from 0 to 1, or the source has no UID that a result could refer to.
    """
    for finding in analysis.findings:
        if not all(0 <= p <= 1 for p in (finding.prediction.probability, *finding.prediction.members.values())):
            raise ReportError(f"node {finding.node.number}: a probability is not a number from 0 to 1")
    return [sr.build(analysis, context), *capture.build(analysis, context)]
