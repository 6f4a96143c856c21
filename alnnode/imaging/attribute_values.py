"""Values of attributes in data sets of unknown origin, which may be malformed."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pydicom.errors import BytesLengthException

if TYPE_CHECKING:
    from pydicom import Dataset

# The exceptions that pydicom raises for a malformed element. Their text quotes the value, which may be patient data: raise "from None".
BAD_VALUE = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)


def value_of(dataset: Dataset, keyword: str) -> object:
    """Return the value of an attribute; None when it is absent or malformed."""
    try:
        return getattr(dataset, keyword, None)
    except BAD_VALUE:
        return None


def text(dataset: Dataset, keyword: str) -> str:
    """Return the value of an attribute as text; empty when it is absent or malformed."""
    value = value_of(dataset, keyword)
    return "" if value is None else str(value)
