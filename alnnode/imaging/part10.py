"""Part 10 files of unknown origin (PS3.10 section 7)."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

from pydicom import Dataset, FileDataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info, read_partial
from pydicom.tag import BaseTag
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian

from alnnode.errors import NotAnalysable
from alnnode.imaging import optional_attributes
from alnnode.imaging.attribute_values import BAD_VALUE
from alnnode.imaging.element_walk import TooManyElementsError
from alnnode.imaging.header_reading import MAX_BUILT, Encoding
from alnnode.imaging.large_elements import MAX_VALUE, LargeElement, WithoutElements, large_elements
from alnnode.imaging.stored_data_set import open_data_set
from alnnode.records import MARK_STORAGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydicom.dataset import FileMetaDataset

MAX_INFLATED = 1 << 30  # bytes of a data set after inflating; a few kilobytes can inflate to terabytes
_PART10_START = 128 + 4 + 12  # preamble, "DICM", the element File Meta Information Group Length
_CHUNK = 1 << 20
# Elements and items of the sequences of one object, each of which takes pydicom 0.7 kB. A CT image has fewer than a thousand, a multi-frame
# image up to 120 for each frame, and the outlines of a hundred organs half a million.
MAX_MULTI_FRAME, MAX_MARKS = 600_000, 1_000_000
_LEAST = 8  # bytes of an element or an item
_UNREADABLE = "A file of the series cannot be read as DICOM; it may be truncated. Please send the series again."
_TOO_MANY = (
    "A file of the series has more elements than are read from one object. Please send the images as the scanner made them."
)
_BROKEN = (*BAD_VALUE, InvalidDicomError, zlib.error, RecursionError, MemoryError)
_BULKY_VR = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "UT"})
_BULKY_GROUPS = (0x5000, 0x6000)  # curves and overlays: 5000-501E and 6000-601E
_BULKY = frozenset({"PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "IconImageSequence"})


def read(path: Path, *, pixels: bool, tags: Sequence[str] | None = None, complete: bool = False) -> FileDataset:
    """Read a Part 10 file, without sequences and values that would need too much memory (`alnnode.imaging.large_elements`).

    Args:
        path: the file.
        pixels: read the pixel data too (as bytes, not decoded).
        tags: keywords of the attributes to read; None: all.
        complete: leave nothing out, and refuse a file whose sequences are too large.

    Raises:
        NotAnalysable: it is not a readable Part 10 file, has too many elements, or inflates to more than `MAX_INFLATED`.
    """
    try:
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            _check_inflated(path, int(meta.get("FileMetaInformationGroupLength", 0)))
        large = _large_elements(path, meta, pixels=pixels, complete=complete)
        wanted = list(tags) if tags else None
        if not large:
            return dcmread(path, stop_before_pixels=not pixels, specific_tags=wanted)
        with path.open("rb") as file, io.BufferedReader(WithoutElements(file, large)) as kept:
            return dcmread(kept, stop_before_pixels=not pixels, specific_tags=wanted)
    except TooManyElementsError:
        raise NotAnalysable(_TOO_MANY) from None
    except _BROKEN:
        # The cause may quote patient data.
        raise NotAnalysable(_UNREADABLE) from None


def left_out(path: Path) -> list[int]:
    """Return the tags of the public sequences that `read` leaves out because they are too large.

    Raises:
        NotAnalysable: as `read` does.
    """
    try:
        found = _large_elements(path, read_file_meta_info(path), pixels=False)
    except TooManyElementsError:
        raise NotAnalysable(_TOO_MANY) from None
    except _BROKEN:
        raise NotAnalysable(_UNREADABLE) from None
    return [one.tag for one in found if one.sequence and not BaseTag(one.tag).is_private]


def _large_elements(path: Path, meta: FileMetaDataset, *, pixels: bool, complete: bool = False) -> list[LargeElement]:
    """Return what `read` leaves out.

    Raises:
        TooManyElementsError: a sequence is too large; of an object with marks, of a deflated data set, or with ``complete``.
        Exception: the bytes are damaged, as `large_elements` raises it.
    """
    kind = meta.get("MediaStorageSOPClassUID")
    max_built = MAX_BUILT if kind == CTImageStorage else MAX_MARKS if kind in MARK_STORAGE else MAX_MULTI_FRAME
    deflated = meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    if not deflated and path.stat().st_size < min(_LEAST * max_built, MAX_VALUE):
        return []  # most images are too small for a large element
    if deflated:
        with (data_set := open_data_set(path)).stream as stream:
            found = large_elements(stream, data_set.encoding, max_built, pixels=pixels)
    else:
        with path.open("rb") as file:
            start = read_partial(file, stop_when=lambda *_: True)  # finds the encoding of a file without a transfer syntax too
            found = large_elements(file, Encoding(*start.original_encoding), max_built, pixels=pixels)
    if not (deflated or complete or kind in MARK_STORAGE):
        return found
    if any(one.sequence for one in found):
        raise TooManyElementsError("the sequences of the data set have too many elements")
    return []


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
