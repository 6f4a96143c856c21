"""Elements of a file that would need too much memory: sequences of very many elements and items, and values of megabytes.

pydicom needs up to a hundred times the memory of their bytes. It builds a sequence of undefined length while it reads a data set, and
any other sequence when its attribute is used.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple

from pydicom.filereader import read_dataset
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from alnnode.imaging.element_walk import UNDEFINED, ElementBudget, StructureError, TooManyElementsError, is_sequence, skip_value
from alnnode.imaging.header_reading import MAX_ELEMENTS, RESTART
from alnnode.imaging.stored_data_set import PIXEL_TAGS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from pydicom.tag import BaseTag

    from alnnode.imaging.header_reading import Encoding

MAX_VALUE = 1 << 20  # bytes of a value that is not pixel data
_CHARACTER_SET = 0x00080005


class LargeElement(NamedTuple):
    """Where a large element begins and ends."""

    tag: int
    start: int
    end: int
    sequence: bool


def large_elements(stream: BinaryIO, encoding: Encoding, max_built: int, *, pixels: bool) -> list[LargeElement]:
    """Return the large elements from the present position of a stream, in order. Pixel data are not among them.

    Args:
        stream: of a data set without File Meta Information.
        encoding: of the data set.
        max_built: the number of elements and items of all sequences that pydicom may build; sequences beyond it are large.
        pixels: go on behind the pixel data; without it, the stream is read up to them.

    Raises:
        StructureError: the data set has too many elements, or ends within a sequence.
        Exception: as pydicom raises it for damaged bytes.
    """
    passed, left = ElementBudget(MAX_ELEMENTS), max_built
    halt = _Halt(stream, max_built, pixels=pixels)
    while (at := halt.next(encoding)) is not None:
        tag, vr = at
        passed.spend(RESTART)
        if tag in PIXEL_TAGS and vr not in {"SQ", "UN"}:  # fragments, which pydicom does not build
            try:
                skip_value(stream, vr=vr, little=encoding.little, budget=passed)
            except StructureError:
                if passed.left < 0:
                    raise
                break  # they are cut off, which the decoder finds
            continue
        start = stream.tell()
        try:
            left -= skip_value(stream, vr=vr, little=encoding.little, budget=ElementBudget(left), inside=True)
        except StructureError:  # also of a sequence that is nested too deeply, or does not end
            stream.seek(start)
            skip_value(stream, vr=vr, little=encoding.little, budget=passed)
            halt.found.append(LargeElement(tag, start, stream.tell(), sequence=True))
    return halt.found


class _Halt:
    """Stops reading before each sequence, and notes the large values before it in ``found``."""

    def __init__(self, stream: BinaryIO, most: int, *, pixels: bool) -> None:
        self._stream, self._left, self._pixels = stream, most, pixels
        self._at: tuple[int, str | None] | None = None
        self.found: list[LargeElement] = []

    def next(self, encoding: Encoding) -> tuple[int, str | None] | None:
        """Return tag and VR of the next sequence, or of another value without a length; None at the end."""
        self._reset()  # pydicom may reach the end without asking
        read_dataset(self._stream, encoding.implicit, encoding.little, stop_when=self._before, specific_tags=[_CHARACTER_SET])
        return self._at

    def _reset(self) -> None:
        self._at = None

    def _before(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        """Return whether to stop before an element."""
        self._reset()  # pydicom also asks when it guesses the encoding, and then asks again
        self._left -= 1
        if self._left < 0:
            raise TooManyElementsError("the data set has too many elements")
        if tag in PIXEL_TAGS and not self._pixels:
            return True
        if length == UNDEFINED or (length and is_sequence(tag, vr)):
            self._at = int(tag), vr
            return True
        if length > MAX_VALUE and tag not in PIXEL_TAGS:
            value = self._stream.tell()
            head = 12 if vr in EXPLICIT_VR_LENGTH_32 else 8
            self.found.append(LargeElement(int(tag), value - head, value + length, sequence=False))
        return False


class WithoutElements(io.RawIOBase):
    """A file without some of its elements.

    Args:
        file: the file; it is not closed with this stream.
        elements: what to leave out, in order.
    """

    def __init__(self, file: BinaryIO, elements: Sequence[LargeElement]) -> None:
        super().__init__()
        self._file, self._at = file, 0
        starts = [0, *(one.end for one in elements)]
        size = file.seek(0, io.SEEK_END)
        ends = [*(one.start for one in elements), size]
        self._kept = [(start, min(end, size)) for start, end in zip(starts, ends, strict=True) if start < min(end, size)]

    @property
    def name(self) -> str:
        """Return no name, so that pydicom does not go back to the file."""
        return ""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or a part of it; return the number of bytes, which is 0 at the end."""
        target, before = memoryview(buffer).cast("B"), 0
        for start, end in self._kept:
            inside = self._at - before
            if inside < end - start:
                self._file.seek(start + inside)
                size: int = self._file.readinto(target[: end - start - inside])  # type: ignore[attr-defined]
                self._at += size
                return size
            before += end - start
        return 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: sum(end - start for start, end in self._kept)}[whence]
        self._at = max(0, start + offset)
        return self._at
