"""Write and read the head of a Part 10 file (PS3.10 section 7.1).

The node does this for every image, and pydicom's general reader and writer would take longer than all other work on that image.
`tests/unit/receive/test_file_meta.py` compares the results with pydicom.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from alnnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PREFIX = b"\0" * 128 + b"DICM"
_SHORT = struct.Struct("<HH2sH")  # tag, VR, length: explicit VR little endian, PS3.5 7.1.2
_LONG = struct.Struct("<HH2sHI")  # the same for a VR with 32-bit length; it fits UL too, whose value follows its 16-bit length
_LONG_VRS = frozenset(  # PS3.5 section 7.1.2
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
SOP_CLASS_UID, SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID, SOURCE_AE_TITLE = 0x02, 0x03, 0x10, 0x16  # (0002,xxxx)
_LENGTH = struct.Struct("<I")
_DIGEST_SIZE = 32
_VERSION = struct.pack("<HH2sHI2s", 2, 1, b"OB", 0, 2, b"\0\1")


def _element(number: int, vr: bytes, value: str, padding: bytes) -> bytes:
    raw = value.encode("ascii", "replace")
    raw += padding * (len(raw) % 2)
    return _SHORT.pack(2, number, vr, len(raw)) + raw


def head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, calling_ae: str, sha256: str) -> bytes:
    """Return preamble, prefix and File Meta Information of a received object.

    Private Information (0002,0102) holds the digest (hex) of the data set, which tells a complete file from one that a power cut left.
    """
    elements = [
        _VERSION,
        _element(0x02, b"UI", sop_class_uid, b"\0"),
        _element(0x03, b"UI", sop_instance_uid, b"\0"),
        _element(0x10, b"UI", transfer_syntax, b"\0"),
        _element(0x12, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
        _element(0x13, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),
    ]
    if calling_ae:
        elements.append(_element(0x16, b"AE", calling_ae, b" "))
    elements.append(_element(0x100, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"))
    elements.append(_LONG.pack(2, 0x102, b"OB", 0, _DIGEST_SIZE) + bytes.fromhex(sha256))
    group = b"".join(elements)
    return _PREFIX + _LONG.pack(2, 0, b"UL", 4, len(group)) + group


def data_set_offset(data: memoryview) -> int:
    """Return the offset in bytes at which the data set of a Part 10 file begins.

    Raises:
        ValueError: the bytes are not a Part 10 file.
    """
    try:
        group, element, vr, _, length = _LONG.unpack_from(data, len(_PREFIX))
    except struct.error as error:
        raise ValueError("shorter than File Meta Information") from error
    if bytes(data[128:132]) != b"DICM" or group != 2:
        raise ValueError("no File Meta Information")
    if (element, vr) != (0, b"UL"):
        # The group has no length, which is required (PS3.10 section 7.1), but which pydicom omits by default.
        return max((end for _, _, end in _elements(data)), default=len(_PREFIX))
    return len(_PREFIX) + _LONG.size + int(length)


def values(data: memoryview) -> dict[int, str]:
    """Return the values of File Meta Information without their padding, by element number.

    Args:
        data: the bytes of a Part 10 file before its data set.

    Raises:
        ValueError: an element is cut off.
    """
    found = {}
    for number, start, end in _elements(data):
        if end > len(data):
            raise ValueError("File Meta Information is cut off")
        found[number] = bytes(data[start:end]).decode("ascii", "replace").rstrip("\0 ")
    return found


def _elements(data: memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of the value of each element of group 2."""
    at = len(_PREFIX)
    try:
        while at < len(data):
            group, number, vr, length = _SHORT.unpack_from(data, at)
            if group != 2:
                return
            at += _SHORT.size
            if vr in _LONG_VRS:
                (length,) = _LENGTH.unpack_from(data, at)
                at += _LENGTH.size
            yield number, at, at + length
            at += length
    except struct.error as error:
        raise ValueError("File Meta Information is cut off") from error


def digest_of(path: Path) -> str | None:
    """Return the digest (hex) that `head` wrote into a file; None when the file does not exist, or has none."""
    try:
        with path.open("rb") as file:
            return digest_in(memoryview(file.read(2048)))
    except FileNotFoundError:
        return None


def digest_in(data: memoryview) -> str | None:
    """Return the digest (hex) that `head` wrote at the start of these bytes; None when they have none."""
    try:
        end = data_set_offset(data)
    except ValueError:
        return None
    mark = _LONG.pack(2, 0x102, b"OB", 0, _DIGEST_SIZE)
    digest = bytes(data[end - _DIGEST_SIZE : end])
    begins = bytes(data[end - _DIGEST_SIZE - len(mark) : end - _DIGEST_SIZE]) == mark
    return digest.hex() if begins and len(digest) == _DIGEST_SIZE else None
