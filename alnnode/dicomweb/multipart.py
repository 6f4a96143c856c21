"""Read ``multipart/related`` (RFC 2046, RFC 2387) as it arrives: small parts in memory, large ones in a file without a name."""

from __future__ import annotations

import mmap
import tempfile
from dataclasses import dataclass, field
from email.message import Message
from typing import IO, TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser
from starlette.concurrency import run_in_threadpool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

IN_MEMORY = 8 << 20  # bytes of one part
MAX_HEADERS = 16 << 10  # bytes of one part


class MalformedBodyError(Exception):
    """The body is not what its Content-Type says; ``str`` says where it is wrong."""


class PartTooLargeError(Exception):
    """A part is larger than the node takes."""


@dataclass
class Part:
    """One body part. `close` it."""

    headers: dict[str, str] = field(default_factory=dict)
    size: int = 0
    _memory: bytearray = field(default_factory=bytearray)
    _file: IO[bytes] | None = None
    _map: mmap.mmap | None = None

    @property
    def spilled(self) -> bool:
        """Whether it is in a file."""
        return self._file is not None

    def write(self, data: memoryview, folder: Path) -> None:
        """Add bytes."""
        self.size += len(data)
        if self._file is None and self.size > IN_MEMORY:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed in close
            self._file.write(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += data
        else:
            self._file.write(data)

    def view(self) -> memoryview:
        """Return all bytes."""
        if self._file is None:
            return memoryview(self._memory)
        self._file.flush()
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._map)

    def close(self) -> None:
        """Let the bytes go; views of them must be released before."""
        if self._map is not None:
            self._map.close()
        if self._file is not None:
            self._file.close()


def parameters(content_type: str) -> tuple[str, dict[str, str]]:
    """Return the media type, in lower case, and its parameters; those in the encoding of RFC 2231 are left out: no media type here has any."""
    message = Message()
    message["Content-Type"] = content_type
    pairs = message.get_params(failobj=[("", "")])
    kind = pairs[0][0] if isinstance(pairs[0][0], str) else ""
    return kind.lower(), {name.lower(): value for name, value in pairs[1:] if isinstance(value, str)}


class _Collector:
    """The callbacks of the parser."""

    def __init__(self, folder: Path, max_part: int) -> None:
        self._folder, self._max = folder, max_part
        self.done: list[Part] = []
        self.current: Part | None = None
        self.ended = False
        self._name, self._value, self._header_bytes = bytearray(), bytearray(), 0

    def begin(self) -> None:
        self.current, self._header_bytes = Part(), 0

    def name(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._name += data[start:end]

    def value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def header(self) -> None:
        if self.current is not None:
            self.current.headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1").strip()
        self._name.clear()
        self._value.clear()

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.current is None:
            return
        if self.current.size + end - start > self._max:
            raise PartTooLargeError
        self.current.write(memoryview(data)[start:end], self._folder)

    def end(self) -> None:
        if self.current is not None:
            self.done.append(self.current)
            self.current = None

    def finish(self) -> None:
        self.ended = True

    def take(self) -> list[Part]:
        taken, self.done = self.done, []
        return taken

    def close(self) -> None:
        for part in [*self.done, *([self.current] if self.current else [])]:
            part.close()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADERS:
            raise MalformedBodyError("the headers of a part are too long")


async def parts(stream: AsyncIterator[bytes], boundary: str, folder: Path, max_part: int) -> AsyncIterator[Part]:
    """Yield each part when it is there; the caller closes it.

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
                # Parts that came whole before the fault are good.
                for part in collector.take():
                    yield part
                raise MalformedBodyError("the boundary does not divide the body") from error
            for part in collector.take():
                yield part
        if not collector.ended:
            raise MalformedBodyError("the body ends before its closing boundary")
    finally:
        collector.close()


def _parser(boundary: str, collector: _Collector) -> MultipartParser:
    try:
        return MultipartParser(
            boundary.encode("latin-1"),
            {
                "on_part_begin": collector.begin,
                "on_header_field": collector.name,
                "on_header_value": collector.value,
                "on_header_end": collector.header,
                "on_part_data": collector.data,
                "on_part_end": collector.end,
                "on_end": collector.finish,
            },
        )
    except (MultipartParseError, UnicodeEncodeError, ValueError) as error:
        raise MalformedBodyError("the boundary cannot be used") from error
