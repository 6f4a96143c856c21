"""Index the attributes of the objects in the spool, for searches.

The database holds no patient data, and a search over a thousand studies cannot read a thousand files. The index therefore reads each object once and
writes its attributes to a file in the folder of the object, which is deleted with the object (docs/adr/0004). A part of the index is cached in memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from pydantic_core import from_json
from pydicom.tag import Tag

from alnnode.dicomweb.dicom_json import UNREADABLE, as_json, dumps
from alnnode.imaging.header_reading import Selection
from alnnode.imaging.stored_data_set import open_data_set, read_header
from alnnode.imaging.stored_image import DEFERRED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from pydicom import FileDataset
    from pydicom.tag import BaseTag

    from alnnode.dicomweb.dicom_json import Json
    from alnnode.spool.spool import Spool

CACHED = 20_000  # series in memory, and as many instances, of 1 to 4 kB each
MAX_ELEMENTS = 10_000  # elements of one attribute in the response to a search
MAX_TEXT = 64 << 10  # bytes of all texts of one attribute there; without a sequence, Explicit VR allows no more

# PS3.18 Tables 10.6.3-3 to 10.6.3-5: the attributes in a search response at each level, as far as the objects contain them.
STUDY = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "TimezoneOffsetFromUTC", "StudyDescription",
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
)  # fmt: skip
SERIES = (
    "Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "SeriesDate", "SeriesTime",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "RequestAttributesSequence", "BodyPartExamined",
)  # fmt: skip
INSTANCE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated", "NumberOfFrames")
LEVELS = {
    name: tuple(f"{Tag(keyword):08X}" for keyword in keywords)
    for name, keywords in (("study", STUDY), ("series", SERIES), ("instance", INSTANCE))
}


class StoredObject(Protocol):
    """An object in the spool."""

    @property
    def path(self) -> str: ...  # noqa: D102 - the name says it: relative to the spool

    @property
    def stored_at(self) -> datetime: ...  # noqa: D102 - an object that replaces another one is stored later


class AttributeIndex:
    """Safe to share between threads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._series = _LevelIndex(spool, "series", (*STUDY, *SERIES))
        self._instances = _LevelIndex(spool, "instances", INSTANCE)

    def series_attributes(self, objects: Sequence[StoredObject]) -> list[Json | None]:
        """Return the attributes of study and series from one object of each series; None if it cannot be read."""
        return self._series.attributes(objects)

    def instance_attributes(self, objects: Sequence[StoredObject]) -> list[Json | None]:
        """Return the attributes of instances; None for those that cannot be read."""
        return self._instances.attributes(objects)

    def is_stored(self, stored: StoredObject) -> bool:
        """Return whether an object still exists: its attributes may be cached after the object was deleted."""
        return self._spool.path(stored.path).exists()

    def indexed_instances(self, stored: StoredObject) -> int:
        """Return how many instances the index file in the folder of an object holds."""
        return self._spool.notes(stored.path.rpartition("/")[0], "instances").count(b"\n")

    def read_attributes(self, path: str, tags: Sequence[str]) -> Json:
        """Read attributes that are not in the index from the object; return none if it cannot be read."""
        wanted: list[BaseTag] = [Tag("SpecificCharacterSet"), *(Tag(int(tag, 16)) for tag in tags)]
        try:
            dataset = _read(self._spool.path(path), wanted)
            found = as_json(dataset, tags=tags, max_elements=MAX_ELEMENTS, max_text=MAX_TEXT)
            dumps(found)  # raises if the attributes cannot be written as JSON, so that they do not break the whole response
        except UNREADABLE:
            return {}
        return found


def _read(path: Path, wanted: Sequence[BaseTag]) -> FileDataset:
    data_set = open_data_set(path)
    with data_set.stream:
        return read_header(data_set, Selection(wanted, DEFERRED))


class _LevelIndex:
    """Attributes of one level in the DICOM JSON model (PS3.18 Annex F), each with the modification time of its file.

    The cache in memory holds the time at which each object was stored, and an entry is valid as long as the database holds the same time: a search
    does not access files whose attributes are cached. Each access to a file would release the lock of the interpreter, and a search over a thousand
    series would wait for the lock a thousand times.
    """

    def __init__(self, spool: Spool, level: str, keywords: Sequence[str]) -> None:
        self._spool, self._level = spool, level
        self._wanted: list[BaseTag] = [Tag(keyword) for keyword in ("SpecificCharacterSet", *keywords)]
        self._tags = {f"{Tag(keyword):08X}" for keyword in keywords}
        self._cache: OrderedDict[str, tuple[datetime, Json]] = OrderedDict()
        self._lock = threading.Lock()

    def attributes(self, objects: Sequence[StoredObject]) -> list[Json | None]:
        found = self._cached(objects)
        folders: dict[str, list[StoredObject]] = {}
        for item in objects:
            if item.path not in found:
                folders.setdefault(item.path.rpartition("/")[0], []).append(item)
        # By folder, because each folder has one index file.
        for folder, items in folders.items():
            fresh = self._indexed(folder, [item.path for item in items])
            found |= fresh
            self._add_to_cache((item, fresh[item.path]) for item in items if item.path in fresh)
        return [found.get(item.path) for item in objects]

    def _cached(self, objects: Sequence[StoredObject]) -> dict[str, Json]:
        found = {}
        with self._lock:
            for item in objects:
                entry = self._cache.get(item.path)
                if entry is not None and entry[0] == item.stored_at:
                    self._cache.move_to_end(item.path)
                    found[item.path] = entry[1]
        return found

    def _add_to_cache(self, fresh: Iterable[tuple[StoredObject, Json]]) -> None:
        with self._lock:
            for item, attributes in fresh:
                self._cache[item.path] = item.stored_at, attributes
                if len(self._cache) > CACHED:
                    self._cache.popitem(last=False)

    def _indexed(self, folder: str, paths: Sequence[str]) -> dict[str, Json]:
        """Return the attributes from the index file; read the objects that it lacks, or that are newer than their entry."""
        modified = {path: time for path in paths if (time := self._modification_time(path)) is not None}
        entries = self._index_file(folder) if modified else {}
        found = {path: entries[path][1] for path, time in modified.items() if path in entries and entries[path][0] == time}
        return found | self._read({path: time for path, time in modified.items() if path not in found})

    def _modification_time(self, path: str) -> int | None:
        try:
            return self._spool.path(path).stat().st_mtime_ns
        except OSError:
            return None

    def _index_file(self, folder: str) -> dict[str, tuple[int, Json]]:
        found = {}
        for line in self._spool.notes(folder, self._level).splitlines():
            try:
                name, modified, attributes = from_json(line)
            except ValueError:  # truncated because the disk was full, or not yet completely written
                continue
            found[f"{folder}/{name}"] = modified, attributes
        return found

    def _read(self, modified: dict[str, int]) -> dict[str, Json]:
        """Read the attributes of objects, and add them to the index file of their folder."""
        read: dict[str, Json] = {}
        lines = []
        for path, time in modified.items():
            try:
                dataset = _read(self._spool.path(path), self._wanted)
                found = as_json(dataset, tags=self._tags, max_elements=MAX_ELEMENTS, max_text=MAX_TEXT)
                line = dumps([path.rpartition("/")[2], time, found])
            except UNREADABLE:
                continue
            read[path] = found
            lines.append(line + b"\n")
        if lines:
            self._spool.note(next(iter(read)), self._level, b"".join(lines))
        return read
