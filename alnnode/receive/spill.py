"""Objects that arrive by C-STORE: small ones in memory, large ones in a file without a name, as in STOW-RS (`alnnode.multipart`)."""

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

IN_MEMORY = 4 << 20  # bytes of one object; a CT image of 512 x 512 pixels has 0.5 MiB
_BUFFER = 256 << 10
_CHECKED = 32 << 20  # bytes between two checks of the free disk space


@dataclass(frozen=True, slots=True)
class SpillFolder:
    """Takes large objects while they arrive.

    Attributes:
        folder: on the file system of the spool.
        max_bytes: of one object.
        check_room: called with a size in bytes; raises `RejectedObject` when the disk has too little free space for it.
    """

    folder: Path
    max_bytes: int
    check_room: Callable[[int], None]


class SpilledDataSet(io.BytesIO):
    """A data set in a file, as the `BytesIO` that pynetdicom expects. The file has no name, so that it ends with the process.

    Attributes:
        fault: status and reason why the object cannot be stored; the bytes after it are dropped.
    """

    def __init__(self, spill: SpillFolder, received: io.BytesIO) -> None:
        super().__init__()
        self.fault: tuple[Status, str] | None = None
        self._spill, self._size, self._next_check = spill, 0, 0
        self._file: IO[bytes] | None = None
        try:
            self._file = tempfile.TemporaryFile(dir=spill.folder, buffering=_BUFFER)  # noqa: SIM115 - closed in close
        except OSError:
            self._fail("the disk does not accept the object")
        with received.getbuffer() as data:
            self.write(data)

    def write(self, data: Any) -> int:
        """Append bytes; after a fault they are dropped."""
        count = len(data)
        self._size += count
        if self.fault is None and self._file is not None:
            try:
                if self._size >= self._next_check:
                    self._next_check = self._size + _CHECKED
                    self._spill.check_room(self._size)
                self._file.write(data)
            except RejectedObject as error:
                self._fail(error.comment)
            except OSError:
                self._fail("the disk does not accept the object")
        return count

    def tell(self) -> int:
        """Return the number of bytes that arrived."""
        return self._size

    @contextmanager
    def view(self) -> Iterator[memoryview]:
        """Return all bytes, in a memory map of the file, whose pages the kernel can reclaim.

        Raises:
            RejectedObject: the disk did not accept the bytes.
        """
        if self.fault is not None or self._file is None:
            raise RejectedObject(*(self.fault or (Status.OUT_OF_RESOURCES, "the disk does not accept the object")))
        try:
            self._file.flush()
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise RejectedObject(Status.OUT_OF_RESOURCES, "the disk does not accept the object") from error
        with memoryview(mapped) as data:
            yield data
        with suppress(BufferError):  # the traceback of an error still refers to a part of the map
            mapped.close()

    def close(self) -> None:
        """Drop the bytes."""
        super().close()
        if self._file is not None:
            with suppress(OSError):  # bytes that are not written yet are not needed
                self._file.close()

    def _fail(self, why: str) -> None:
        self.fault = Status.OUT_OF_RESOURCES, why
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
