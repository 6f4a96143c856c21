"""Read what routes and completion must know of a series from the header of one object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue

from alnnode.db.rows import SeriesFacts

if TYPE_CHECKING:
    from pydicom import Dataset


def series_facts(dataset: Dataset, calling_ae: str) -> SeriesFacts:
    """Return the facts of a series; values that cannot be decoded count as missing."""
    return SeriesFacts(
        calling_ae=calling_ae[:16],
        modality=printable_text(dataset, "Modality", 16),
        body_part=printable_text(dataset, "BodyPartExamined", 64),
        series_description=printable_text(dataset, "SeriesDescription", 256),
        study_description=printable_text(dataset, "StudyDescription", 256),
        kernel=printable_text(dataset, "ConvolutionKernel", 256),
        slice_thickness=_number(dataset, "SliceThickness", 0.0, 1000.0),
        announced=int(_number(dataset, "NumberOfSeriesRelatedInstances", 1, 1_000_000) or 0) or None,
    )


def printable_text(dataset: Dataset, keyword: str, limit: int) -> str:
    """Return a text value with at most ``limit`` characters, all printable; empty when the value is missing."""
    value = _value(dataset, keyword)
    if value is None:
        return ""
    words = value if isinstance(value, MultiValue) else [value]
    text = "\\".join(str(word) for word in words)
    clean = text if text.isprintable() else "".join(character if character.isprintable() else " " for character in text)
    return clean.encode("utf-8", "replace").decode("utf-8").strip()[:limit]


def _number(dataset: Dataset, keyword: str, low: float, high: float) -> float | None:
    try:
        number = float(str(_value(dataset, keyword)))
    except ValueError:
        return None
    return number if low <= number <= high else None


def _value(dataset: Dataset, keyword: str) -> object:
    try:
        return dataset.get(keyword)
    # A value that its VR does not allow is not known.
    except (ValueError, TypeError, OverflowError, AttributeError, NotImplementedError, BytesLengthException, LookupError):
        return None
