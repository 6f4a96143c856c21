"""References of objects to series, for the listener and for the reader's marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.sequence import Sequence as Items

from alnnode.imaging.attribute_values import BAD_VALUE, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset

MAX_ITEMS = 20_000  # of one sequence
# The top-level sequences that `referenced_series` reads.
REFERENCES = (
    "ReferencedSeriesSequence",
    "CurrentRequestedProcedureEvidenceSequence",
    "PertinentOtherEvidenceSequence",
    "ReferencedFrameOfReferenceSequence",
)


def children(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    """Yield the items of a sequence, at most `MAX_ITEMS`; none when it is absent or damaged."""
    try:
        found = getattr(dataset, keyword, None)
    except BAD_VALUE:
        return
    if isinstance(found, Items):
        for number, item in enumerate(found):
            if number == MAX_ITEMS:
                return
            yield item


def referenced_series(dataset: Dataset) -> tuple[str, ...]:
    """Return the Series Instance UIDs that an object refers to.

    PS3.3 C.12.4 (Common Instance Reference), C.11.11 (Presentation State), C.17.2 (SR Document), C.8.8.5 (Structure Set).
    """
    series = list(children(dataset, "ReferencedSeriesSequence"))
    for evidence in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in children(dataset, evidence):
            series += children(study, "ReferencedSeriesSequence")
    for frame in children(dataset, "ReferencedFrameOfReferenceSequence"):
        for study in children(frame, "RTReferencedStudySequence"):
            series += children(study, "RTReferencedSeriesSequence")
    found = dict.fromkeys(text(item, "SeriesInstanceUID") for item in series)
    return tuple(uid for uid in found if uid)
