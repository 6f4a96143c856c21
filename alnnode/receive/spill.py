"""Objects that come in by C-STORE: small ones in memory, large ones in a file without a name, as STOW-RS does (`alnnode.multipart`)."""

from __future__ import annotations

import io
import mmap
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from alnnode.errors import RejectedObject
from alnnode.receive.dimse_status import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

IN_MEMORY = 4 << 20  # bytes of one object; a CT image of 512 x 512 pixels has half a MiB
_BUFFER = 256 << 10
_LOOK = 32 << 20  # bytes between two looks at the room that is left


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where objects are kept while they come in, and how much of them.

    Attributes:
        folder: on the disk of the spool.
        max_bytes: of one object.
        check_room: called with a size in bytes; raises `RejectedObject` when the disk has not enough room for it.
    """

    folder: Path
    max_bytes: int
    check_room: Callable[[int], None]


class Spilled(io.BytesIO):
    """A data set in a file, as the `BytesIO` that pynetdicom asks for. The file has no name: it ends with the process at the latest.

    Attributes:
        fault: why the object cannot be kept; what comes after it is dropped.
    """

    def __init__(self, keeping: Keeping, begun: io.BytesIO) -> None:
        super().__init__()
        self.fault: tuple[Status, str] | None = None
        self._keeping, self._size, self._look = keeping, 0, 0
        self._file: IO[bytes] | None = None
        try:
            self._file = tempfile.TemporaryFile(dir=keeping.folder, buffering=_BUFFER)  # noqa: SIM115 - closed in close
        except OSError:
            self._fail("the disk does not take the object")
        with begun.getbuffer() as data:
            self.write(data)

    def write(self, data: Any) -> int:
        """Add bytes; after a fault none are kept."""
        count = len(data)
        self._size += count
        if self.fault is None and self._file is not None:
            try:
                if self._size >= self._look:
                    self._look = self._size + _LOOK
                    self._keeping.check_room(self._size)
                self._file.write(data)
            except RejectedObject as error:
                self._fail(error.comment)
            except OSError:
                self._fail("the disk does not take the object")
        return count

    def tell(self) -> int:
        """Return how many bytes came."""
        return self._size

    @contextmanager
    def view(self) -> Iterator[memoryview]:
        """Give all bytes; the file is mapped, and takes no memory that the kernel could not have back.

        Raises:
            RejectedObject: the disk did not take them.
        """
        if self.fault is not None or self._file is None:
            raise RejectedObject(*(self.fault or (Status.OUT_OF_RESOURCES, "the disk does not take the object")))
        try:
            self._file.flush()
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise RejectedObject(Status.OUT_OF_RESOURCES, "the disk does not take the object") from error
        with memoryview(mapped) as data:
            yield data
        with suppress(BufferError):  # an error that is on its way still holds a part of it
            mapped.close()

    def close(self) -> None:
        """Let the bytes go."""
        super().close()
        if self._file is not None:
            with suppress(OSError):  # what was not written yet is not wanted any more
                self._file.close()

    def _fail(self, why: str) -> None:
        self.fault = Status.OUT_OF_RESOURCES, why
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
