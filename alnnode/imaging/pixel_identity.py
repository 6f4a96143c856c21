"""Whether two objects under one SOP Instance UID are the same image in two encodings.

A PACS may send an image in another transfer syntax than the scanner did. That is no other object: its pixels, once decoded, and what says whose they
are and where they lie, are equal. Descriptions that a PACS corrects or adds do not make another image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset

from alnnode.errors import NotAnalysable
from alnnode.imaging import decode, part10
from alnnode.imaging.attribute_values import BAD_VALUE

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import FileDataset

MAX_BYTES = 256 << 20  # of either file: larger ones are not compared
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
ENCODING = frozenset({"SpecificCharacterSet"})  # and group 0002; values are compared as decoded


def same(first: Path, second: Path) -> bool:
    """Return whether two Part 10 files hold the same image, or where there are no pixels the same document.

    Files that cannot be read, or are too large to be compared, are not the same.

    Raises:
        OSError: one is not there, or the disk does not do its part.
    """
    if max(first.stat().st_size, second.stat().st_size) > MAX_BYTES:
        return False
    try:
        one, other = (part10.read(path, pixels=True) for path in (first, second))
        if "PixelData" not in one and "PixelData" not in other:
            return _document(one) == _document(other)
        return all(_spelt(one, keyword) == _spelt(other, keyword) for keyword in (*WHO, *WHERE)) and _pixels_equal(one, other)
    except (*BAD_VALUE, NotAnalysable, RuntimeError, MemoryError) as error:
        if isinstance(error, OSError):
            raise
        return False


def _spelt(dataset: Dataset, keyword: str) -> object:
    """Return a value as two encodings of it agree on: without padding; None where it is absent or empty."""
    value = dataset.get(keyword)
    if isinstance(value, str) or type(value).__name__ == "PersonName":
        return str(value).rstrip(" \0^=") or None
    return None if value in (None, "") else value


def _document(dataset: FileDataset) -> Dataset:
    """Return what is said in an object without pixels: everything public, as an Implicit VR encoding keeps it, too."""
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
