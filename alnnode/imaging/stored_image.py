"""Single frames of any stored image, encoded or decoded, without reading the other frames."""

from __future__ import annotations

import struct
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from alnnode.errors import NotAnalysable, ServiceError
from alnnode.imaging import codecs, decoder_panics
from alnnode.imaging.attribute_values import BAD_VALUE
from alnnode.imaging.decode import codestream_size
from alnnode.imaging.header_reading import Selection
from alnnode.imaging.stored_data_set import PIXEL_TAGS, data_set_offset, inflated, open_data_set, read_header

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, BinaryIO

    import numpy.typing as npt

    Pixels = npt.NDArray[Any]

DEFERRED = 1 << 20  # bytes; a larger value is not read from the file before it is needed
MAX_FRAME = 1 << 28  # bytes of a decoded frame
MAX_IMAGE = 1 << 31  # bytes of all frames that are decoded together
PACKBITS = 64  # largest expansion of RLE (PS3.5 Annex G)
_UNDECODABLE = (*BAD_VALUE, InvalidDicomError, RuntimeError, MemoryError, RecursionError, zlib.error)
_UNDEFINED = 0xFFFFFFFF


class NoSuchFrameError(Exception):
    """The image has no pixel data, or fewer frames."""


class DamagedImageError(Exception):
    """The pixel data cannot be read or decoded. The error quotes no values."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image with the position of its pixel data in the file; `open_image` opens one."""

    path: Path
    header: Dataset
    keyword: str
    offset: int  # of the value in `open`
    length: int  # bytes; undefined for encapsulated pixel data
    syntax: str
    frames: int

    @property
    def encapsulated(self) -> bool:
        """Whether the pixel data are compressed."""
        return self.length == _UNDEFINED

    @property
    def frame_bytes(self) -> int:
        """Size of an uncompressed frame in bytes; rounded up for one-bit pixels."""
        bits = int(self.header.Rows) * int(self.header.Columns) * int(self.header.get("SamplesPerPixel", 1)) * self._allocated
        return (bits + 7) // 8

    @property
    def _allocated(self) -> int:
        return {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(self.keyword) or int(self.header.BitsAllocated)

    def open(self) -> BinaryIO:
        """Open the pixel data; the caller closes the stream."""
        with ExitStack() as stack:
            file: BinaryIO = stack.enter_context(self.path.open("rb"))
            if self.syntax == DeflatedExplicitVRLittleEndian:
                file.seek(data_set_offset(self.header.file_meta))
                file = inflated(file, self.syntax)
            file.seek(self.offset)
            stack.pop_all()
            return file

    def stored(self, number: int) -> bytes:
        """Return frame ``number`` (from 1) as stored in the file: a codestream, or uncompressed pixels."""
        try:
            if not 1 <= number <= self.frames:
                raise NoSuchFrameError
            with self.open() as file:
                if self.encapsulated:
                    return get_frame(file, number - 1, number_of_frames=self.frames)
                return self._native(file, number)
        except _UNDECODABLE:
            raise DamagedImageError from None

    def _native(self, file: BinaryIO, number: int) -> bytes:
        if self._allocated == 1:
            return self._frame_in(file.read(self.length), number)
        file.seek(self.offset + (number - 1) * self.frame_bytes)
        return self._complete(file.read(self.frame_bytes))

    def _frame_in(self, value: bytes, number: int) -> bytes:
        size = int(self.header.Rows) * int(self.header.Columns)
        if self._allocated == 1 and size % 8:  # frames of one-bit pixels follow each other without a gap (PS3.5 section 8.1.1)
            bits = np.unpackbits(np.frombuffer(value, np.uint8), bitorder="little")[(number - 1) * size : number * size]
            return self._complete(np.packbits(bits, bitorder="little").tobytes())
        start = (number - 1) * self.frame_bytes
        return self._complete(value[start : start + self.frame_bytes])

    def _complete(self, value: bytes) -> bytes:
        if len(value) != self.frame_bytes:
            raise DamagedImageError
        return value

    def uncompressed(self, number: int) -> bytes:
        """Return frame ``number`` as in Explicit VR Little Endian."""
        if self.encapsulated:
            return self.pixels(number, colour=False).tobytes()
        value = self.stored(number)
        if self.syntax == ExplicitVRBigEndian and self._allocated > 8:
            return np.frombuffer(value, f">u{self._allocated // 8}").astype(f"<u{self._allocated // 8}").tobytes()
        return value

    def pixels(self, number: int, *, colour: bool = True) -> Pixels:
        """Decode frame ``number``; with ``colour``, YBR becomes RGB."""
        value = self.stored(number) if self.encapsulated else self.uncompressed(number)
        try:
            self._check(value)
            if self.syntax in codecs.PLUGINS:
                return codecs.decode_frame(value, self.header, self.syntax, raw=not colour)
            one = Dataset()
            one.update(self.header.group_dataset(0x0028))
            one.NumberOfFrames = 1
            setattr(one, self.keyword, encapsulate([value]) if self.encapsulated else value + b"\0" * (len(value) % 2))
            one[self.keyword].VR = {"FloatPixelData": "OF", "DoubleFloatPixelData": "OD"}.get(self.keyword, "OW")
            syntax = UID(self.syntax) if self.encapsulated else ExplicitVRLittleEndian
            one.file_meta = self.header.file_meta.__class__()
            one.file_meta.TransferSyntaxUID = syntax
            one.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
            with decoder_panics.caught():
                array, _ = get_decoder(syntax).as_array(one, index=0, raw=not colour)
        except (*_UNDECODABLE, NotAnalysable, ServiceError):
            raise DamagedImageError from None  # the cause may quote values
        return array

    def check(self) -> None:
        """Check that all frames can be decoded together.

        Raises:
            DamagedImageError: they would be larger than the header says, or than `MAX_IMAGE`.
        """
        try:
            if self.frames * self.frame_bytes > MAX_IMAGE:
                raise DamagedImageError
            for number in range(1, self.frames + 1):
                self._check(self.stored(number))
        except _UNDECODABLE:
            raise DamagedImageError from None

    def _check(self, value: bytes) -> None:
        """Compare a frame with the header before it is decoded: a few bytes must not expand to gigabytes."""
        if not 0 < self.frame_bytes <= MAX_FRAME:
            raise DamagedImageError
        size = int(self.header.Rows), int(self.header.Columns)
        if self.encapsulated and self.syntax in codecs.PLUGINS and codestream_size(value) != size:
            raise DamagedImageError
        if self.encapsulated and self.syntax == RLELossless and self.frame_bytes > PACKBITS * len(value):
            raise DamagedImageError


def open_image(path: Path) -> StoredImage:
    """Read the header of an image.

    Raises:
        NoSuchFrameError: it holds no pixels.
        DamagedImageError: it cannot be read.
        OSError: the file is missing.
    """
    with path.open("rb"), ExitStack() as stack:  # a missing file is no damaged image
        try:
            data_set = open_data_set(path)
            stack.enter_context(data_set.stream)
            header = read_header(data_set, Selection(defer_size=DEFERRED))
            tag, offset, length = _element(data_set.stream, data_set.syntax)
            frames = int(header.get("NumberOfFrames") or 1)
        except _UNDECODABLE:
            raise DamagedImageError from None
    if tag not in PIXEL_TAGS:
        raise NoSuchFrameError
    return StoredImage(path, header, PIXEL_TAGS[tag], offset, length, data_set.syntax, frames)


def _element(file: BinaryIO, syntax: str) -> tuple[int, int, int]:
    """Return tag, offset of the value and length of the next element in the file (PS3.5 section 7.1)."""
    head = file.read(12)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    if len(head) < 12:
        return 0, 0, 0
    group, element = struct.unpack(f"{order}HH", head[:4])
    if syntax == ImplicitVRLittleEndian:
        return group << 16 | element, file.tell() - 4, struct.unpack("<L", head[4:8])[0]
    return group << 16 | element, file.tell(), struct.unpack(f"{order}L", head[8:12])[0]
