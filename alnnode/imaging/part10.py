"""Part 10 files of unknown origin (PS3.10 section 7)."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from pydicom import Dataset, FileDataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from alnnode.errors import NotAnalysable
from alnnode.imaging import optional_attributes
from alnnode.imaging.attribute_values import BAD_VALUE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_INFLATED = 1 << 30  # bytes of a data set after inflating; a few kilobytes can inflate to terabytes
_PART10_START = 128 + 4 + 12  # preamble, "DICM", the element File Meta Information Group Length
_CHUNK = 1 << 20
_BROKEN = (*BAD_VALUE, InvalidDicomError, zlib.error, RecursionError, MemoryError)
_BULKY_VR = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "UT"})
_BULKY_GROUPS = (0x5000, 0x6000)  # curves and overlays: 5000-501E and 6000-601E
_BULKY = frozenset({"PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "IconImageSequence"})


def read(path: Path, *, pixels: bool, tags: Sequence[str] | None = None) -> FileDataset:
    """Read a Part 10 file.

    Args:
        path: the file.
        pixels: read the pixel data too (as bytes, not decoded).
        tags: keywords of the attributes to read; None: all.

    Raises:
        NotAnalysable: it is not a readable Part 10 file, or inflates to more than `MAX_INFLATED`.
    """
    try:
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            _check_inflated(path, int(meta.get("FileMetaInformationGroupLength", 0)))
        return dcmread(path, stop_before_pixels=not pixels, specific_tags=list(tags) if tags else None)
    except _BROKEN:
        # The cause may quote patient data.
        raise NotAnalysable(
            "A file of the series cannot be read as DICOM; it may be truncated. Please send the series again."
        ) from None


def header_of(dataset: Dataset) -> tuple[Dataset, list[int]]:
    """Return the attributes of an instance without pixel data, private attributes and large values.

    Returns:
        The attributes, and the tags of elements that were left out because their values are unusable.
    """
    header, left_out = Dataset(), []
    for tag in dataset.keys():  # noqa: SIM118 - iterating the data set itself would stop at the first malformed element
        if tag.is_private or tag.group in {0x0002, 0x7FE0} or tag.group & 0xFF00 in _BULKY_GROUPS:
            continue
        try:
            element = dataset[tag]
            if element.VR in _BULKY_VR or element.keyword in _BULKY:
                continue
            sound = optional_attributes.usable(element)
        except _BROKEN:
            sound = False
        if sound:
            header[tag] = element
        else:
            left_out.append(int(tag))
    return header, left_out


def _check_inflated(path: Path, meta_length: int) -> None:
    size = 0
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as stream:
        stream.seek(_PART10_START + meta_length)
        data = stream.read(_CHUNK)
        while data and size <= MAX_INFLATED:
            size += len(inflater.decompress(data, _CHUNK))
            data = inflater.unconsumed_tail or stream.read(_CHUNK)
    if size > MAX_INFLATED:
        raise NotAnalysable("A compressed image unpacks to more than a CT image can hold. Please send the original series.")
