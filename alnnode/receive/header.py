"""Read what acceptance must know of a data set, without decoding or keeping the rest of it."""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from alnnode import MANUFACTURER
from alnnode.db.rows import SeriesFacts
from alnnode.errors import RejectedObject
from alnnode.imaging.references import REFERENCES, referenced_series
from alnnode.receive.dimse_status import Status
from alnnode.records import MARK_STORAGE

if TYPE_CHECKING:
    from pydicom import Dataset

# PS3.5 9.1, except that components with leading zeros pass: real files hold them, and no path is made from a UID.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")

# A set of plain integers: pydicom's tags compare slowly, and every element of every image is asked about.
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
# Of a deflated data set the head is read; the rest is only measured, piece by piece: a few bytes may inflate to more than any reader can hold.
_INFLATED_HEAD = 1 << 20
_DEFLATED_PIECE = 1 << 16
MAX_INFLATED = 1 << 30  # bytes, as `alnnode.imaging.part10` allows
_UNDEFINED = 0xFFFFFFFF
_COPIED = 8 << 20  # bytes; smaller ones are read fastest from a copy


@dataclass(frozen=True, slots=True)
class Header:
    """What acceptance must know of one data set."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    facts: SeriesFacts
    refers: tuple[str, ...] = ()  # series that it holds a reader's marks on


def valid_uid(value: str) -> bool:
    """Whether a UID has only digits and dots and at most 64 characters."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def read(
    data: bytes | memoryview, transfer_syntax: str, calling_ae: str, known: dict[tuple[str, str], SeriesFacts] | None = None
) -> Header:
    """Read the header of an encoded data set (no File Meta Information).

    ``known`` keeps the facts of series by Series Instance UID and AE title from call to call: they are the same in every image, and
    decoding text costs as much as all the rest here.

    Raises:
        RejectedObject: it is no data set in this transfer syntax, its pixel data are cut off, or a UID is missing or not valid.
    """
    dataset = _deflated(data) if transfer_syntax == DeflatedExplicitVRLittleEndian else _plain(data, transfer_syntax)
    series_uid = _uid(dataset, "SeriesInstanceUID")
    facts = None if known is None else known.get((series_uid, calling_ae))
    if facts is None:
        facts = _facts(dataset, calling_ae)
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
    """Return the series that an object of marks is of; none when this software made it: results come back from a PACS."""
    if transfer_syntax == DeflatedExplicitVRLittleEndian:
        data, transfer_syntax = _inflated_head(data), ExplicitVRLittleEndian
    dataset = _read(io.BytesIO(data), transfer_syntax, lambda tag, _vr, _length: tag > _REFERENCES[-1], _REFERENCES)
    if _text(dataset, "Manufacturer", 64) == MANUFACTURER:
        return ()
    return tuple(uid for uid in referenced_series(dataset) if valid_uid(uid))


def _uid(dataset: Dataset, keyword: str) -> str:
    raw = getattr(dataset.get_item(_TAGS[keyword]), "value", None)
    value = raw.decode("ascii", "replace").rstrip("\0 ") if isinstance(raw, bytes) else str(raw or "")
    if not valid_uid(value):
        raise RejectedObject(Status.INVALID_UID, f"{keyword} is {'not valid' if value else 'missing'}")
    return value


def _plain(data: bytes | memoryview, transfer_syntax: str) -> Dataset:
    stopped: list[tuple[BaseTag, int]] = []

    def at_pixels(tag: BaseTag, _vr: str | None, length: int) -> bool:
        if tag in _PIXEL_DATA:
            stopped.append((tag, length))
        return tag in _PIXEL_DATA

    # A large object may be a mapped file: it must not be copied into memory.
    stream: BinaryIO = io.BytesIO(data) if len(data) < _COPIED else io.BufferedReader(_View(data))
    dataset = _read(stream, transfer_syntax, at_pixels)
    if not stopped:
        if stream.tell() != len(data):
            raise RejectedObject(Status.CANNOT_DECODE, "the data set is cut off or not decodable")
        return dataset
    _check_pixels(data, stream.tell(), stopped[-1][1], implicit=transfer_syntax == ImplicitVRLittleEndian)
    return dataset


def _check_pixels(data: bytes | memoryview, start: int, length: int, *, implicit: bool) -> None:
    """Refuse pixel data that end early: the sender still has the whole object, and nobody will have it later."""
    if length == _UNDEFINED:
        # Encapsulated: the last item is a Sequence Delimitation Item; elements (padding, signatures) may follow it.
        complete = b"\xfe\xff\xdd\xe0\0\0\0\0" in bytes(data[-4096:])
    else:
        complete = start + (8 if implicit else 12) + length <= len(data)
    if not complete:
        raise RejectedObject(Status.CANNOT_DECODE, "the pixel data are cut off")


def _deflated(data: bytes | memoryview) -> Dataset:
    head = _inflated_head(data)
    if _inflated(data) > MAX_INFLATED:
        raise RejectedObject(Status.OUT_OF_RESOURCES, f"the deflated data set is larger than {MAX_INFLATED >> 20} MB")
    last = _WANTED[-1]
    return _read(io.BytesIO(head), ExplicitVRLittleEndian, lambda tag, _vr, _length: tag > last)


def _inflated_head(data: bytes | memoryview) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _INFLATED_HEAD)
    except zlib.error as error:
        raise RejectedObject(Status.CANNOT_DECODE, "the deflated data set is damaged") from error


def _inflated(data: bytes | memoryview) -> int:
    """Return the size of a deflated data set, or where it is larger than allowed something above that; keeps none of it."""
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        for start in range(0, len(data), _DEFLATED_PIECE):
            piece: bytes | memoryview = data[start : start + _DEFLATED_PIECE]
            while piece and size <= MAX_INFLATED:
                size += len(inflater.decompress(piece, _INFLATED_HEAD))
                piece = inflater.unconsumed_tail
    except zlib.error as error:
        raise RejectedObject(Status.CANNOT_DECODE, "the deflated data set is damaged") from error
    return size


class _View(io.RawIOBase):
    """Bytes that lie elsewhere, as a file."""

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
    implicit = transfer_syntax == ImplicitVRLittleEndian
    little = transfer_syntax != ExplicitVRBigEndian
    try:
        return read_dataset(stream, implicit, little, stop_when=stop, specific_tags=wanted)
    # pydicom promises no set of exceptions for bytes that are not DICOM; an object must never end its association.
    except Exception as error:
        raise RejectedObject(Status.CANNOT_DECODE, "the data set is not decodable") from error


def _facts(dataset: Dataset, calling_ae: str) -> SeriesFacts:
    return SeriesFacts(
        calling_ae=calling_ae[:16],
        modality=_text(dataset, "Modality", 16),
        body_part=_text(dataset, "BodyPartExamined", 64),
        series_description=_text(dataset, "SeriesDescription", 256),
        study_description=_text(dataset, "StudyDescription", 256),
        kernel=_text(dataset, "ConvolutionKernel", 256),
        slice_thickness=_number(dataset, "SliceThickness", 0.0, 1000.0),
        announced=int(_number(dataset, "NumberOfSeriesRelatedInstances", 1, 1_000_000) or 0) or None,
    )


def _value(dataset: Dataset, keyword: str) -> object:
    try:
        return dataset.get(keyword)
    # A value that its VR does not allow: what routes and completion ask for is then simply not known.
    except (ValueError, TypeError, OverflowError, AttributeError, NotImplementedError, BytesLengthException, LookupError):
        return None


def _text(dataset: Dataset, keyword: str, limit: int) -> str:
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
