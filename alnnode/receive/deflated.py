"""Read deflated data sets (PS3.5 section A.5) without holding the inflated bytes: a few bytes can inflate to gigabytes."""

from __future__ import annotations

import zlib

from alnnode.errors import RejectedObject
from alnnode.receive.dimse_status import Status

MAX_INFLATED = 1 << 30  # bytes, as in `alnnode.imaging.part10`
_HEAD = 1 << 20  # bytes
_PIECE = 1 << 16  # bytes of deflated data that are inflated at a time


def inflated_head(data: bytes | memoryview) -> bytes:
    """Return the first bytes of the inflated data set, at most 1 MiB.

    Raises:
        RejectedObject: the bytes cannot be inflated.
    """
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _HEAD)
    except zlib.error as error:
        raise RejectedObject(Status.CANNOT_DECODE, "the deflated data set is damaged") from error


def check_inflated_size(data: bytes | memoryview) -> None:
    """Inflate the whole data set piece by piece, without storing it, and check its size.

    Raises:
        RejectedObject: the data set is larger than `MAX_INFLATED`, or cannot be inflated.
    """
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        for start in range(0, len(data), _PIECE):
            piece: bytes | memoryview = data[start : start + _PIECE]
            while piece and size <= MAX_INFLATED:
                size += len(inflater.decompress(piece, _HEAD))
                piece = inflater.unconsumed_tail
    except zlib.error as error:
        raise RejectedObject(Status.CANNOT_DECODE, "the deflated data set is damaged") from error
    if size > MAX_INFLATED:
        raise RejectedObject(Status.OUT_OF_RESOURCES, f"the deflated data set is larger than {MAX_INFLATED >> 20} MB")
