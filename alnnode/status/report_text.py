"""Read the statements of a stored report: the status page shows exactly the text of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom import Dataset

# DCM codes: Conclusion, Finding and Comment; and the container that describes each node (Imaging Measurements).
STATEMENTS, DETAIL = {"121077", "121071", "121106"}, "126010"


def read_statements(path: Path) -> list[str]:
    """Return the statements of a report of this software, in order; none if the file is deleted or is not such a report."""
    try:
        return list(_statements(dcmread(path)))
    except (OSError, InvalidDicomError, AttributeError, KeyError, IndexError, ValueError):
        return []


def _statements(item: Dataset) -> Iterator[str]:
    for child in item.get("ContentSequence", []):
        code = child.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in child else ""
        if child.ValueType == "TEXT" and code in STATEMENTS:
            yield str(child.TextValue)
        elif child.ValueType == "CONTAINER" and code != DETAIL:
            yield from _statements(child)
