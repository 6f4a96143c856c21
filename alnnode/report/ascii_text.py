"""Texts of this software in ASCII, because an object has the character set of its source, which may lack a degree sign."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

TEXT_VRS = ("LO", "SH", "ST", "LT", "UC", "UT")
SPELLINGS = str.maketrans(
    {"\u00b0": " degrees", "\u00b1": "+/-", "\u00b5": "u", "\u00d7": "x", "\u2013": "-", "\u2014": "-", "\u2026": "...", "\u2264": "<=", "\u2265": ">=",
     "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00df": "ss"}
)  # fmt: skip


def to_ascii(dataset: Dataset) -> None:
    """Replace all text values of a data set by ASCII."""
    for element in dataset.iterall():
        if element.VR in TEXT_VRS and isinstance(element.value, str) and not element.value.isascii():
            element.value = ascii_words(element.value)


def ascii_words(text: str) -> str:
    """Return the text in ASCII: letters without diacritics, known signs in words, and a question mark for any other character."""
    spelt = unicodedata.normalize("NFKD", text.translate(SPELLINGS))
    return "".join(c for c in spelt if not unicodedata.combining(c)).encode("ascii", "replace").decode("ascii")
