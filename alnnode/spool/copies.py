"""The files that a host keeps of a bucket: copies of objects in use, and notes for searches. They are patient data, and end by themselves.

Copies are not synced to the disk, because the bucket holds the objects. A file that was written before the machine stopped without warning
may therefore hold anything. So copies lie in a folder that is named after the start of the machine, and those of an earlier start are not
used.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

UNUSED = 3600.0  # seconds after which a copy that nobody used is deleted
UNUSED_NOTES = 86400.0  # seconds; notes are made again from the objects, which takes longer than to fetch a copy
INTERVAL = 300.0  # seconds between two searches for files to delete
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Copies:
    """The copies and notes below one folder."""

    def __init__(self, root: Path) -> None:
        self._all, self.notes = root / "copies", root / "notes"
        try:
            boot = BOOT.read_text(encoding="ascii").strip()
        except OSError:
            boot = uuid4().hex  # no process uses the copies of another one
        self.folder = self._all / boot

    def watch(self) -> None:
        """Start a thread that deletes what nobody uses, also on a host that is idle; it ends with this object."""
        threading.Thread(target=_delete_unused, args=(weakref.ref(self),), name="copies", daemon=True).start()

    def path(self, key: str, tag: str) -> Path:
        """Return the path of the copy of an object with this tag."""
        path = self.folder / key
        return path.with_name(f"{path.stem}.{tag}{path.suffix}")

    @staticmethod
    def use(path: Path, at: float | None = None) -> None:
        """Record that a file is used now; ``at`` is the time of its object (seconds since the epoch), or that of the file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        os.utime(path, (time.time(), path.stat().st_mtime if at is None else at))

    def delete(self, key: str) -> None:
        """Delete the copies of an object."""
        for copy in (self.folder / key).parent.glob(f"{Path(key).stem}.*"):
            copy.unlink(missing_ok=True)

    def delete_unused(self) -> None:
        """Delete the copies that nobody used for an hour, and the notes that nobody used for a day."""
        now = time.time()
        for root, limit in ((self._all, UNUSED), (self.notes, UNUSED_NOTES)):
            for folder, _, names in os.walk(root, topdown=False):
                for name in names:
                    path = Path(folder, name)
                    with suppress(OSError):  # another process deleted it meanwhile
                        if abs(now - path.stat().st_atime) >= limit:
                            path.unlink()
                with suppress(OSError):  # it is not empty
                    if abs(now - Path(folder).stat().st_mtime) >= limit:  # nobody is about to write into it
                        Path(folder).rmdir()


def _delete_unused(copies: weakref.ref[Copies]) -> None:
    while (present := copies()) is not None:
        present.delete_unused()
        del present
        time.sleep(INTERVAL)
