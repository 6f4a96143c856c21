"""Comparison of two objects with one SOP Instance UID: are they the same image in two transfer syntaxes?

A PACS may send an image in another transfer syntax than the scanner did. It is the same image when the decoded pixels, the identity and the
geometry are equal. Descriptions that a PACS corrects or adds do not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset
from pydicom.sequence import Sequence

from alnnode.errors import NotAnalysable
from alnnode.imaging import decode, part10
from alnnode.imaging.attribute_values import BAD_VALUE
from alnnode.imaging.header_reading import Selection
from alnnode.imaging.stored_data_set import inflated_size, open_data_set, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import FileDataset

MAX_BYTES = 256 << 20  # of a file: larger ones are not compared
MAX_PIXELS = 1 << 26  # of a frame
WHO = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "PatientName", "PatientID",
    "PatientBirthDate", "PatientSex",
)  # fmt: skip
WHERE = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation", "RescaleSlope", "RescaleIntercept",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PixelPaddingValue", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
ENCODING = frozenset({"SpecificCharacterSet"})  # ignored, as is group 0002: values are compared after decoding


def same(first: Path, second: Path) -> bool:
    """Return whether two Part 10 files hold the same image, or, without pixel data, the same document.

    Files that cannot be read, or that are too large to be compared, count as different.

    Raises:
        OSError: a file is missing, or the disk fails.
    """
    try:
        if not all(map(_is_comparable, (first, second))):
            return False
        one, other = (part10.read(path, pixels=True, complete=True) for path in (first, second))
        if "PixelData" not in one and "PixelData" not in other:
            return _document(one) == _document(other)
        return all(
            _without_padding(one, keyword) == _without_padding(other, keyword) for keyword in (*WHO, *WHERE)
        ) and _pixels_equal(one, other)
    except (*BAD_VALUE, NotAnalysable, RuntimeError, MemoryError) as error:
        if isinstance(error, OSError):
            raise
        return False


def _is_comparable(path: Path) -> bool:
    """Return whether an object can be held in memory: by its size, and by the items of its sequences."""
    if path.stat().st_size > MAX_BYTES or inflated_size(path) > MAX_BYTES:
        return False
    with (data_set := open_data_set(path)).stream:
        read_header(data_set, Selection(defer_size=0, complete=True))  # raises a ValueError
    return True


def _without_padding(dataset: Dataset, keyword: str) -> object:
    """Return a value without what depends on the encoding: padding, and private elements of items. None when it is absent or empty."""
    value = dataset.get(keyword)
    if isinstance(value, Sequence):
        return [_public(item) for item in value]
    if isinstance(value, str) or type(value).__name__ == "PersonName":
        return str(value).rstrip(" \0^=") or None
    return None if value in (None, "") else value


def _public(item: Dataset) -> Dataset:
    """Return an item without private elements: in Implicit VR they have lost their VR, so their values differ from those in Explicit VR."""
    item.remove_private_tags()
    return item


def _document(dataset: FileDataset) -> Dataset:
    """Return the public attributes of an object without pixel data."""
    dataset.remove_private_tags()
    for keyword in ENCODING & set(dataset.dir()):
        del dataset[keyword]
    dataset.decode()
    return Dataset(dataset)  # without the file's own name and encoding


def _pixels_equal(one: FileDataset, other: FileDataset) -> bool:
    rows, columns = int(one.Rows), int(one.Columns)
    if not 0 < rows * columns <= MAX_PIXELS:
        return False
    size = decode.Size(rows, columns)
    for dataset in (one, other):
        decode.check_pixel_data(dataset, size)
    count = int(one.get("NumberOfFrames") or 1)
    pairs = zip(decode.stored_values(one, range(count)), decode.stored_values(other, range(count)), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
