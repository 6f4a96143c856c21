"""What the searches of every archive for prior reports have in common: limits, and which series count."""

from __future__ import annotations

import re

from alnnode import RESULTS

NEWEST_STUDIES = 10  # studies that are searched for reports, newest first
MAX_RESPONSE_BYTES = 32 << 20  # of one response, and of one report
UID = re.compile(r"[0-9]+(\.[0-9]+)*")


def holds_own_reports(modality: str, series_description: str, series_uid: str) -> bool:
    """Return whether a series holds reports of this software, and its UID may be part of a request."""
    return modality == "SR" and series_description.startswith(RESULTS) and UID.fullmatch(series_uid) is not None
