"""Read what the listener must know of a data set, without decoding or storing the rest of it."""

from __future__ import annotations

import io
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from alnnode import MANUFACTURER
from alnnode.errors import RejectedObject
from alnnode.imaging.element_walk import StructureError
from alnnode.imaging.header_reading import Encoding, Selection, read_attributes
from alnnode.imaging.references import REFERENCES, referenced_series
from alnnode.receive.deflated import check_inflated_size, inflated_head
from alnnode.receive.dimse_status import Status
from alnnode.receive.series_facts import printable_text, series_facts
from alnnode.records import MARK_STORAGE

if TYPE_CHECKING:
    from pydicom import Dataset

    from alnnode.db.rows import SeriesFacts

# PS3.5 9.1, except that components may have leading zeros: real files have them, and no path is made from a UID.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")

# Plain integers, because pydicom's tags compare slowly, and every element of every image is compared.
_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_KNOWN_LIMIT = 256
_TAGS = {
    keyword: Tag(keyword)
    for keyword in (
        "SpecificCharacterSet",
        "SOPClassUID",
        "SOPInstanceUID",
        "Modality",
        "StudyDescription",
        "SeriesDescription",
        "BodyPartExamined",
        "SliceThickness",
        "ConvolutionKernel",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "NumberOfSeriesRelatedInstances",
    )
}
_WANTED: list[BaseTag | int] = list(_TAGS.values())
_REFERENCES: list[BaseTag | int] = sorted(Tag(keyword) for keyword in ("Manufacturer", *REFERENCES))
_REFERENCES_BUILT = 40_000  # elements and items of references; more than 16 series have, and they need about 30 MB
_UNDEFINED = 0xFFFFFFFF
_HEAD = 32 << 10  # bytes; the pixel data of an image from one slice begin earlier
_COPIED = 8 << 20  # bytes; a smaller data set is read fastest from a copy


@dataclass(frozen=True, slots=True)
class Header:
    """What the listener must know of one data set; ``refers`` has the series on which it holds a reader's marks."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    facts: SeriesFacts
    refers: tuple[str, ...] = ()


def valid_uid(value: str) -> bool:
    """Return whether a UID has only digits and dots, and at most 64 characters."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def read(
    data: bytes | memoryview, transfer_syntax: str, calling_ae: str, known: dict[tuple[str, str], SeriesFacts] | None = None
) -> Header:
    """Read the header of an encoded data set (without File Meta Information).

    Args:
        data: the data set.
        transfer_syntax: UID of its encoding.
        calling_ae: AE title of the sender.
        known: facts of series by Series Instance UID and AE title, which this function fills and uses: they are the same in every image, and
            decoding text takes as long as the rest of this function.

    Raises:
        RejectedObject: the bytes are no data set in this transfer syntax, the pixel data are cut off, or a UID is missing or not valid.
    """
    dataset = _deflated(data) if transfer_syntax == DeflatedExplicitVRLittleEndian else _plain(data, transfer_syntax)
    series_uid = _uid(dataset, "SeriesInstanceUID")
    facts = None if known is None else known.get((series_uid, calling_ae))
    if facts is None:
        facts = series_facts(dataset, calling_ae)
        if known is not None:
            if len(known) >= _KNOWN_LIMIT:
                known.clear()
            known[series_uid, calling_ae] = facts
    sop_class_uid = _uid(dataset, "SOPClassUID")
    return Header(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=_uid(dataset, "SOPInstanceUID"),
        study_uid=_uid(dataset, "StudyInstanceUID"),
        series_uid=series_uid,
        facts=facts,
        refers=_refers(data, transfer_syntax) if sop_class_uid in MARK_STORAGE else (),
    )


def _refers(data: bytes | memoryview, transfer_syntax: str) -> tuple[str, ...]:
    """Return the series that an object of marks refers to; none for an object of this software, which a PACS may send back."""
    if transfer_syntax == DeflatedExplicitVRLittleEndian:
        data, transfer_syntax = inflated_head(data), ExplicitVRLittleEndian
    dataset = _read(_stream(data), transfer_syntax, lambda tag, _vr, _length: tag > _REFERENCES[-1], _REFERENCES)
    if printable_text(dataset, "Manufacturer", 64) == MANUFACTURER:
        return ()
    return tuple(uid for uid in referenced_series(dataset) if valid_uid(uid))


def _uid(dataset: Dataset, keyword: str) -> str:
    raw = getattr(dataset.get_item(_TAGS[keyword]), "value", None)
    value = raw.decode("ascii", "replace").rstrip("\0 ") if isinstance(raw, bytes) else str(raw or "")
    if not valid_uid(value):
        raise RejectedObject(Status.INVALID_UID, f"{keyword} is {'not valid' if value else 'missing'}")
    return value


@dataclass(frozen=True, slots=True)
class _Start:
    """The beginning of a data set: its elements, where it ends, and the length of the pixel data that follow; None without any."""

    dataset: Dataset
    end: int
    pixels: int | None


def _plain(data: bytes | memoryview, transfer_syntax: str) -> Dataset:
    start = _start(data, transfer_syntax)
    if start.pixels is not None:
        _check_pixels(data, start.end, start.pixels, implicit=transfer_syntax == ImplicitVRLittleEndian)
    elif start.end != len(data):
        raise RejectedObject(Status.CANNOT_DECODE, "the data set is cut off or not decodable")
    return start.dataset


def _start(data: bytes | memoryview, transfer_syntax: str) -> _Start:
    if len(data) > _HEAD:
        with suppress(RejectedObject):  # the pixel data begin later, or this is no data set, as the complete bytes will show
            # Reading a copy is fastest, and copying only the beginning of an image is faster than copying all of it.
            start = _read_to_pixels(io.BytesIO(data[:_HEAD]), transfer_syntax)
            if start.pixels is not None:
                return start
    return _read_to_pixels(_stream(data), transfer_syntax)


def _stream(data: bytes | memoryview) -> BinaryIO:
    """Return a stream; a large data set may be a mapped file, which must not be copied into memory."""
    return io.BytesIO(data) if len(data) < _COPIED else io.BufferedReader(_View(data))


def _read_to_pixels(stream: BinaryIO, transfer_syntax: str) -> _Start:
    stopped: list[int] = []

    def at_pixels(tag: BaseTag, _vr: str | None, length: int) -> bool:
        if tag in _PIXEL_DATA:
            stopped.append(length)
        return tag in _PIXEL_DATA

    dataset = _read(stream, transfer_syntax, at_pixels)
    return _Start(dataset, stream.tell(), stopped[-1] if stopped else None)


def _check_pixels(data: bytes | memoryview, start: int, length: int, *, implicit: bool) -> None:
    """Refuse pixel data that are cut off: the sender still has the complete object."""
    if length == _UNDEFINED:
        # Encapsulated: the last item is a Sequence Delimitation Item; elements (padding, signatures) may follow it.
        complete = b"\xfe\xff\xdd\xe0\0\0\0\0" in bytes(data[-4096:])
    else:
        complete = start + (8 if implicit else 12) + length <= len(data)
    if not complete:
        raise RejectedObject(Status.CANNOT_DECODE, "the pixel data are cut off")


def _deflated(data: bytes | memoryview) -> Dataset:
    head = inflated_head(data)
    check_inflated_size(data)
    last = _WANTED[-1]
    return _read(io.BytesIO(head), ExplicitVRLittleEndian, lambda tag, _vr, _length: tag > last)


class _View(io.RawIOBase):
    """A file whose bytes are in a memoryview."""

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__()
        self._data, self._at = memoryview(data), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        piece = self._data[self._at : self._at + len(target)]
        target[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        self._at = max(0, start + offset)
        return self._at


def _read(stream: BinaryIO, transfer_syntax: str, stop: Any, wanted: list[BaseTag | int] = _WANTED) -> Dataset:
    try:
        return read_attributes(stream, Encoding.of(transfer_syntax), stop, Selection(wanted, max_built=_REFERENCES_BUILT))
    except StructureError as error:
        raise RejectedObject(Status.CANNOT_DECODE, str(error)) from error
    # pydicom promises no set of exceptions for bytes that are not DICOM; an object must never end its association.
    except Exception as error:
        raise RejectedObject(Status.CANNOT_DECODE, "the data set is not decodable") from error
