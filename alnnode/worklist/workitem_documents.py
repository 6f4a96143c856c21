"""Read and write the data sets of workitems in the spool."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json

if TYPE_CHECKING:
    from alnnode.spool.spool import Spool
    from alnnode.worklist.ups import Json

CACHED = 1000  # documents in memory
CACHED_BYTES = 32 << 10  # of one document; workitems have some kB


class WorkitemDocuments:
    """Data sets in files that never change: a changed data set gets a new file. Safe to share between threads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._cache: OrderedDict[str, Json] = OrderedDict()
        self._lock = Lock()

    def read(self, path: str) -> Json:
        """Return the data set of a file; the caller must not change it.

        Raises:
            FileNotFoundError: the file was deleted.
        """
        with self._lock:
            if path in self._cache:
                self._cache.move_to_end(path)
                return self._cache[path]
        content = self._spool.path(path).read_bytes()
        document: Json = from_json(content)
        self._add_to_cache(path, document, len(content))
        return document

    def write(self, document: Json) -> str:
        """Write a data set durably to a new file; return its path, relative to the spool."""
        content = to_json(document)
        path = self._spool.put_document(content)
        self._add_to_cache(path, document, len(content))
        return path

    def delete(self, path: str) -> None:
        """Delete a file that no row references any more."""
        with self._lock:
            self._cache.pop(path, None)
        self._spool.delete([path])

    def _add_to_cache(self, path: str, document: Json, size: int) -> None:
        if size > CACHED_BYTES:
            return
        with self._lock:
            self._cache[path] = document
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
