"""Read deflated data sets (PS3.5 section A.5) as a stream, without holding the inflated bytes: 1 MB can inflate to 1 GB."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import BinaryIO

MAX_WORK = 4 << 30  # bytes that one stream inflates, all of its new beginnings together: about ten seconds
_PIECE = 1 << 16  # bytes that are read, and inflated, at a time


class InflatingStream(io.RawIOBase):
    """The inflated data set that begins at the present position of a file. Reading backwards begins again, which takes time.

    Use it through `io.BufferedReader`, which serves the short steps back of a parser.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self._start, self._work = file, file.tell(), MAX_WORK
        self._begin()

    def _begin(self) -> None:
        self._file.seek(self._start)
        self._inflater, self._rest, self._at = zlib.decompressobj(-zlib.MAX_WBITS), b"", 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or a part of it; return the number of bytes, which is 0 at the end.

        Raises:
            OSError: the bytes cannot be inflated, or the reader goes back too often.
        """
        target = memoryview(buffer).cast("B")
        piece = self._next(len(target))
        target[: len(piece)] = piece
        return len(piece)

    def _next(self, size: int) -> bytes:
        while size and not self._inflater.eof:
            data = self._rest or self._file.read(_PIECE)
            try:
                piece = self._inflater.decompress(data, min(size, _PIECE))
            except zlib.error as error:
                raise OSError("the deflated data set is damaged") from error
            self._rest = self._inflater.unconsumed_tail
            self._work -= len(piece)
            if self._work < 0:
                raise OSError("reading the deflated data set takes too long")
            if piece or not data:
                self._at += len(piece)
                return piece
        return b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position from the beginning, from the present position, or (without an offset) to the end."""
        if whence == io.SEEK_END:
            while self._next(_PIECE):
                pass
            return self._at
        position = offset + (self._at if whence == io.SEEK_CUR else 0)
        if position < self._at:
            self._begin()
        while self._at < position and self._next(position - self._at):
            pass
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def close(self) -> None:
        """Close the file too."""
        if not self.closed:
            self._file.close()
        super().close()
