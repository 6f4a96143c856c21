"""Result objects: one module per kind. Read only records; no clock, no randomness, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.report import capture, sr

if TYPE_CHECKING:
    from alnnode.records import Analysis, ReportContext, ResultObject


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return the result objects of an analysis: the report first, then the captures (none without a volume).

    The same analysis and context give the same bytes.
    """
    return [sr.build(analysis, context), *capture.build(analysis, context)]
