"""Pixel data to Hounsfield units. Sizes are checked before memory is allocated."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydicom.encaps import generate_frames, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGExtended12Bit, RLELossless

from alnnode.errors import NotAnalysable
from alnnode.imaging import codecs, decoder_panics, part10
from alnnode.imaging.attribute_values import BAD_VALUE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt
    from pydicom import FileDataset

    from alnnode.imaging.frames import Frame

    Raw = npt.NDArray[np.integer]
    Hounsfield = npt.NDArray[np.int16]

AIR, HIGHEST = -1024, 32767  # HU: -1024 is below vacuum (-1000); 32767 is the largest int16
_TISSUE = (-900, 3000)  # HU: a Pixel Padding Value in this range is ignored, because it would erase real voxels
_UNDECODABLE = (*BAD_VALUE, RuntimeError, EOFError, OSError, struct.error, MemoryError)
_END_OF_IMAGE = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_SOC_SIZ = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream
_NOT_SOF = frozenset({0xC4, 0xC8, 0xCC})  # DHT, JPG and DAC have codes between those of the SOF markers
_SOF_LS = 0xF7
_SOF_EXTENDED = 0xC1  # extended sequential DCT, which may have 12 bits

_DAMAGED = "The pixel data of an image are incomplete or damaged. Please send the series again."
_NO_12_BITS = (
    "The images are compressed as 12-bit lossy JPEG, which this node cannot decode. "
    f"Please send them uncompressed, or install the extra alnnode[{codecs.EXTRA}] (GPL-3.0)."
)


def hounsfield(frames: Sequence[Frame]) -> Iterator[Hounsfield]:
    """Decode frames of one instance.

    Args:
        frames: of one file; several threads may decode different files in parallel.

    Yields:
        HU of each frame, in order: int16 (rows, columns), from -1024 to 32767; padding becomes air.

    Raises:
        NotAnalysable: the pixel data are missing, short, damaged, or in a transfer syntax without decoder.
    """
    dataset = part10.read(frames[0].path, pixels=True)
    yield from hounsfield_of(dataset, frames)


def hounsfield_of(dataset: FileDataset, frames: Sequence[Frame]) -> Iterator[Hounsfield]:
    """Decode frames of an instance that is already read; otherwise as `hounsfield`."""
    try:
        check_pixel_data(dataset, Size(frames[0].rows, frames[0].columns))
        padding = _padding(dataset)
        values = stored_values(dataset, [(frame.number or 1) - 1 for frame in frames])
        for frame, raw in zip(frames, values, strict=True):
            if raw.shape != (frame.rows, frame.columns):
                raise NotAnalysable(_DAMAGED)
            yield _rescale(raw, frame, padding)
    except _UNDECODABLE:
        raise NotAnalysable(_DAMAGED) from None  # the cause may quote header values


def stored_values(dataset: FileDataset, indices: Iterable[int]) -> Iterator[Raw]:
    """Decode frames, by their indices from 0, to stored values, the input of the modality LUT (PS3.3 C.11.1.1).

    Raises:
        RuntimeError, and the exceptions of pydicom: the pixel data are damaged. Call `check_pixel_data` first.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in codecs.PLUGINS:
        count = int(dataset.get("NumberOfFrames") or 1)
        for index in indices:
            yield codecs.decode_frame(get_frame(dataset.PixelData, index, number_of_frames=count), dataset, syntax, raw=True)
        return
    native_shift = _misplaced_bits(dataset)
    arrays = get_decoder(syntax).iter_array(
        dataset,
        indices=list(indices),
        raw=True,
        correct_unused_bits=native_shift is None,
    )
    with decoder_panics.caught():
        for array, _ in arrays:
            yield array if native_shift is None else (array << native_shift[0]) >> native_shift[1]


class Size(NamedTuple):
    """Size of one frame in the header."""

    rows: int
    columns: int


def check_pixel_data(dataset: FileDataset, frame: Size) -> None:
    """Compare the pixel data with the header before a decoder uses them.

    Raises:
        NotAnalysable: they are missing, too short, or describe another image size than the header.
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    data = dataset.get("PixelData")
    if not isinstance(data, bytes) or not data:
        raise NotAnalysable("An image holds no pixel data. Please send the series again.")
    count = int(dataset.get("NumberOfFrames") or 1)
    if syntax is None or not (syntax.is_transfer_syntax and _has_decoder(syntax)):
        raise NotAnalysable("The images are in a compressed form that this node cannot read. Please send them uncompressed.")
    if not syntax.is_encapsulated:
        if len(data) < frame.rows * frame.columns * count * int(dataset.BitsAllocated) // 8:
            raise NotAnalysable(_DAMAGED)
        return
    try:
        for codestream in generate_frames(data, number_of_frames=count):
            _check_codestream(codestream, syntax, frame)
    except _UNDECODABLE:
        raise NotAnalysable(_DAMAGED) from None


def _has_decoder(syntax: str) -> bool:
    try:
        return bool(codecs.installed(syntax) if syntax in codecs.PLUGINS else get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _check_codestream(codestream: bytes, syntax: str, frame: Size) -> None:
    if syntax == RLELossless:
        # PackBits expands 2 bytes to at most 128, so that the length of the input bounds the output.
        return
    if syntax in codecs.PLUGINS:
        if codestream_size(codestream) != (frame.rows, frame.columns):
            raise NotAnalysable(
                "The compressed pixels of an image do not have the size that its header says. Please send the series again."
            )
        if _END_OF_IMAGE not in codestream[-16:]:
            raise NotAnalysable(_DAMAGED)
        if syntax == JPEGExtended12Bit and _has_12_bits(codestream) and not codecs.decodes_12_bits():
            raise NotAnalysable(_NO_12_BITS)


def codestream_size(codestream: bytes) -> tuple[int, int]:
    """Return (rows, columns) from a JPEG, JPEG-LS (ITU-T T.81 B.2.2, T.87) or JPEG 2000 (T.800 A.5.1) codestream.

    Raises:
        ValueError: there is no frame header in it.
    """
    start = codestream[:256].find(_SOC_SIZ)
    if start >= 0:
        right, bottom, left, top = struct.unpack_from(">4I", codestream, start + 8)
        return bottom - top, right - left
    rows, columns = struct.unpack_from(">2H", codestream, _frame_header(codestream) + 5)
    return rows, columns


def _has_12_bits(codestream: bytes) -> bool:
    place = _frame_header(codestream)
    return codestream[place + 1] == _SOF_EXTENDED and codestream[place + 4] == 12


def _frame_header(codestream: bytes) -> int:
    """Return the offset of the SOF marker of a JPEG or JPEG-LS codestream."""
    place = 2
    while place + 9 <= len(codestream) and codestream[place] == 0xFF:
        marker = codestream[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in _NOT_SOF) or marker == _SOF_LS:
            return place
        place += 2 + struct.unpack_from(">H", codestream, place + 2)[0]
    raise ValueError("no frame header in the codestream")


def _misplaced_bits(dataset: FileDataset) -> tuple[int, int] | None:
    """Return (left, right) shifts for native data whose High Bit is not Bits Stored - 1 (PS3.5 8.1.1), else None."""
    high, stored, allocated = int(dataset.HighBit), int(dataset.BitsStored), int(dataset.BitsAllocated)
    if high == stored - 1 or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return None
    return allocated - 1 - high, allocated - stored


def _padding(dataset: FileDataset) -> tuple[int, int] | None:
    """Return the range (first, last) of stored values that are padding (PS3.3 C.7.5.1.1.2); None without a valid one."""
    try:
        first = int(dataset["PixelPaddingValue"].value)
        last = int(dataset["PixelPaddingRangeLimit"].value) if "PixelPaddingRangeLimit" in dataset else first
    except BAD_VALUE:
        return None
    return min(first, last), max(first, last)


def _rescale(raw: Raw, frame: Frame, padding: tuple[int, int] | None) -> Hounsfield:
    hu = raw.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)
    np.rint(hu, out=hu)
    np.clip(hu, AIR, HIGHEST, out=hu)
    result = hu.astype(np.int16)
    if padding is not None:
        # The padding value may be written as unsigned for signed pixels, and vice versa, so its bits are compared.
        first, last = (int(np.array(value, dtype=np.int64).astype(raw.dtype)) for value in padding)
        ends = [value * frame.slope + frame.intercept for value in (first, last)]
        if max(ends) <= _TISSUE[0] or min(ends) >= _TISSUE[1]:
            result[(raw >= first) & (raw <= last)] = AIR
    return result
