"""Read and write ``multipart/related`` bodies (RFC 2046, RFC 2387), for the HTTP service and for the clients of other servers."""

from __future__ import annotations

import mmap
import re
import tempfile
from dataclasses import dataclass, field
from email.message import Message
from itertools import pairwise
from typing import IO, TYPE_CHECKING, NamedTuple

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser
from starlette.concurrency import run_in_threadpool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from pathlib import Path

RELATED = "multipart/related"
IN_MEMORY = 2 << 20  # bytes of one part; a larger part goes into a file
MAX_HEADERS = 16 << 10  # bytes of the headers of one part


class MalformedBodyError(Exception):
    """The body does not match its Content-Type; ``str`` says where it is wrong."""


class PartTooLargeError(Exception):
    """A part is larger than the reader allows."""


@dataclass
class BodyPart:
    """One body part that was received. The caller closes it.

    A part above `IN_MEMORY` bytes is in a temporary file without a name, so that no crash leaves it behind.
    """

    headers: dict[str, str] = field(default_factory=dict)
    size: int = 0
    _memory: bytearray = field(default_factory=bytearray)
    _file: IO[bytes] | None = None
    _map: mmap.mmap | None = None

    @property
    def spilled(self) -> bool:
        """Whether the bytes are in a file."""
        return self._file is not None

    def write(self, data: memoryview, folder: Path | None) -> None:
        """Append bytes; a part above `IN_MEMORY` bytes moves to a file in ``folder``, where there is one."""
        self.size += len(data)
        if self._file is None and self.size > IN_MEMORY and folder is not None:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed in close
            self._file.write(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += data
        else:
            self._file.write(data)

    def view(self) -> memoryview:
        """Return all bytes; a file is mapped into memory."""
        if self._file is None:
            return memoryview(self._memory)
        self._file.flush()
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._map)

    def close(self) -> None:
        """Release the memory map and the file; release every view before."""
        if self._map is not None:
            self._map.close()
        if self._file is not None:
            self._file.close()


def media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """Return the media type of a Content-Type header and its parameters, names in lower case.

    Parameters in the encoding of RFC 2231 are left out: no media type that DICOMweb uses has any.
    """
    message = Message()
    message["Content-Type"] = content_type
    pairs = message.get_params(failobj=[("", "")])
    kind = pairs[0][0] if isinstance(pairs[0][0], str) else ""
    return kind.lower(), {name.lower(): value for name, value in pairs[1:] if isinstance(value, str)}


class _Collector:
    """Collects the parts that the parser's callbacks report."""

    def __init__(self, folder: Path | None, max_part: int) -> None:
        self._folder, self._max = folder, max_part
        self.done: list[BodyPart] = []
        self.current: BodyPart | None = None
        self.ended = False
        self._name, self._value, self._header_bytes = bytearray(), bytearray(), 0

    def on_part_begin(self) -> None:
        self.current, self._header_bytes = BodyPart(), 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self.current is not None:
            self.current.headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1").strip()
        self._name.clear()
        self._value.clear()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self.current is None:
            return
        if self.current.size + end - start > self._max:
            raise PartTooLargeError
        self.current.write(memoryview(data)[start:end], self._folder)

    def on_part_end(self) -> None:
        if self.current is not None:
            self.done.append(self.current)
            self.current = None

    def on_end(self) -> None:
        self.ended = True

    def completed(self) -> list[BodyPart]:
        completed, self.done = self.done, []
        return completed

    def close(self) -> None:
        for part in [*self.done, *([self.current] if self.current else [])]:
            part.close()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADERS:
            raise MalformedBodyError("the headers of a part are too long")


async def read_parts(stream: AsyncIterator[bytes], boundary: str, folder: Path, max_part: int) -> AsyncIterator[BodyPart]:
    """Yield each part of a body as soon as it is complete; the caller closes the part.

    Args:
        stream: the body in pieces.
        boundary: parameter of the body's Content-Type.
        folder: takes the temporary files of large parts.
        max_part: bytes that one part may have.

    Raises:
        MalformedBodyError: the boundary does not divide the body, or the body ends before its closing boundary.
        PartTooLargeError: a part has more than ``max_part`` bytes.
    """
    collector = _Collector(folder, max_part)
    parser = _parser(boundary, collector)
    try:
        async for chunk in stream:
            try:
                if collector.current is not None and collector.current.spilled:
                    await run_in_threadpool(parser.write, chunk)
                else:
                    parser.write(chunk)
            except MultipartParseError as error:
                # Parts that were complete before the fault are good.
                for part in collector.completed():
                    yield part
                raise MalformedBodyError("the boundary does not divide the body") from error
            for part in collector.completed():
                yield part
        if not collector.ended:
            raise MalformedBodyError("the body ends before its closing boundary")
    finally:
        collector.close()


def split_parts(body: bytes, boundary: str) -> list[bytes]:
    """Return the content of each complete part of a body that is in memory.

    This reader is for the responses of other servers: it accepts a preamble, padding after a boundary (RFC 2046 section 5.1.1) and any part
    header. It leaves out a part that is cut off, and all that follows the closing boundary.
    """
    try:
        delimiter = re.compile(rb"\r\n--" + re.escape(boundary.encode("latin-1")) + rb"(--|[ \t]*(?=\r\n)|$)")
    except UnicodeEncodeError:
        return []
    whole, contents = b"\r\n" + body, []
    found = list(delimiter.finditer(whole))
    for opening, closing in pairwise(found):
        if opening.group(1) == b"--":
            break
        _, end_of_headers, content = whole[opening.end() : closing.start()].partition(b"\r\n\r\n")
        if end_of_headers:
            contents.append(content)
    return contents


def _parser(boundary: str, collector: _Collector) -> MultipartParser:
    try:
        return MultipartParser(
            boundary.encode("latin-1"),
            {
                "on_part_begin": collector.on_part_begin,
                "on_header_field": collector.on_header_field,
                "on_header_value": collector.on_header_value,
                "on_header_end": collector.on_header_end,
                "on_part_data": collector.on_part_data,
                "on_part_end": collector.on_part_end,
                "on_end": collector.on_end,
            },
        )
    except (MultipartParseError, UnicodeEncodeError, ValueError) as error:
        raise MalformedBodyError("the boundary cannot be used") from error


class OutgoingPart(NamedTuple):
    """One body part to send; ``length`` in bytes is sent as its Content-Length where it is known."""

    content_type: str
    content: Iterable[bytes]
    length: int | None = None

    def head(self, boundary: str) -> bytes:
        """Return the delimiter and the headers that come before the content."""
        length = "" if self.length is None else f"Content-Length: {self.length}\r\n"
        return f"--{boundary}\r\nContent-Type: {self.content_type}\r\n{length}\r\n".encode("ascii")


def related(kind: str, boundary: str) -> str:
    """Return the Content-Type of a body whose parts are of this media type (RFC 2387 section 3.1)."""
    return f'{RELATED}; type="{kind}"; boundary={boundary}'


def write_parts(parts: Iterable[OutgoingPart], boundary: str) -> Iterator[bytes]:
    """Yield a body piece by piece; each part is asked for its content when its turn comes."""
    for part in parts:
        yield part.head(boundary)
        yield from part.content
        yield b"\r\n"
    yield _closing(boundary)


def written_length(parts: Sequence[OutgoingPart], boundary: str) -> int:
    """Return how many bytes `write_parts` yields for parts whose length is known."""
    return sum(len(part.head(boundary)) + (part.length or 0) + 2 for part in parts) + len(_closing(boundary))


def _closing(boundary: str) -> bytes:
    return f"--{boundary}--\r\n".encode("ascii")
