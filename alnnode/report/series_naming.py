"""Series Description and Series Number of result objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode import RESULTS
from alnnode.records import Crop

if TYPE_CHECKING:
    from alnnode.records import Analysis
    from alnnode.report.object_kind import ObjectKind

SERIES_NUMBERS = 200_000  # ten thousand times a larger number would exceed an Integer String (PS3.5 6.2)


def series_description(analysis: Analysis, kind: ObjectKind, crop: Crop | None = None) -> str:
    """Return "AI nodes of series 4: Grad-CAM FSC - DEMO, NOT FOR CLINICAL USE" (LO, at most 64 characters).

    It names the source series, the content, the network, and states that it is not for clinical use.
    """
    number = _source_number(analysis)
    notice = f" - {'DEMO, ' if analysis.model.demonstration else ''}NOT FOR CLINICAL USE"
    what = kind.content if crop is None else f"{kind.content} {crop.value.upper()}"
    head = f"{RESULTS[0]} {'?' if number is None else number}: "
    return head + what.replace("Grad-CAM", "CAM" if len(head + what + notice) > 64 else "Grad-CAM") + notice


def series_number(analysis: Analysis, kind: ObjectKind, crop: Crop | None = None) -> int:
    """Return the Series Number of a result: 49001 is the report of series 4, 9001 the report of a series without number.

    So the results of several series of a study have different numbers, and are sorted after their sources.
    """
    place = 9000 + kind.series_place + int(crop is Crop.ASC)
    number = _source_number(analysis) or 0
    return place + (number if number > SERIES_NUMBERS else 10_000 * number)


def _source_number(analysis: Analysis) -> int | None:
    """Return the Series Number of the source; None when it is missing or out of range."""
    try:
        number = int(str(analysis.header.get("SeriesNumber", "")))
    except ValueError:
        return None
    return number if 0 <= number < 10**9 else None
