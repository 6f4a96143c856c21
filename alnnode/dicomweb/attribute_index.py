"""Attributes of the objects in the spool: read from the objects, noted beside them, and kept in memory for a while.

No patient data are in the database, and a search over a thousand studies cannot read a thousand files. So what was read once is
noted in the object's own folder, and goes when the object goes (docs/adr/0004).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from pydantic_core import from_json
from pydicom import dcmread
from pydicom.tag import Tag

from alnnode.dicomweb.dicom_json import UNREADABLE, as_json, dumps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from pydicom.tag import BaseTag

    from alnnode.dicomweb.dicom_json import Json
    from alnnode.spool.spool import Spool

KEPT = 20_000  # series, and as many instances, of 1 to 4 kB each
CONVERTED = 10_000  # elements of one object in the answer to a search

# PS3.18 Tables 10.6.3-3 to 10.6.3-5: what an answer to a search holds at each level, as far as it is in the objects themselves.
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


class Held(Protocol):
    """Something in the spool."""

    @property
    def path(self) -> str: ...  # noqa: D102 - the attribute's own name

    @property
    def at(self) -> datetime: ...  # noqa: D102 - when it came: what comes again in its place comes later


class Attributes:
    """Safe to share between threads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._series = _Shelf(spool, "series", (*STUDY, *SERIES))
        self._instances = _Shelf(spool, "instances", INSTANCE)

    def of_series(self, held: Sequence[Held]) -> list[Json | None]:
        """Return the attributes of study and series from one object of each series; None where it cannot be read."""
        return self._series.of(held)

    def of_instances(self, held: Sequence[Held]) -> list[Json | None]:
        """Return the attributes of instances; None for those that cannot be read."""
        return self._instances.of(held)

    def is_here(self, held: Held) -> bool:
        """Whether an object is there still: its attributes may be remembered when somebody has deleted it."""
        return self._spool.path(held.path).exists()

    def noted(self, held: Held) -> int:
        """How many instances are noted in the folder of an object."""
        return self._spool.notes(held.path.rpartition("/")[0], "instances").count(b"\n")

    def further(self, path: str, tags: Sequence[str]) -> Json:
        """Return attributes that are not noted, as far as the object has them; nothing where it cannot be read."""
        wanted: list[BaseTag] = [Tag("SpecificCharacterSet"), *(Tag(int(tag, 16)) for tag in tags)]
        try:
            dataset = dcmread(self._spool.path(path), specific_tags=wanted, stop_before_pixels=True, force=True)
            found = as_json(dataset, tags=tags, most=CONVERTED)
            dumps(found)  # what cannot be written would spoil the whole answer
        except UNREADABLE:
            return {}
        return found


class _Shelf:
    """Attributes of one level, in the DICOM JSON model (PS3.18 Annex F), noted with the moment their file was written.

    In memory they are kept with the moment their object came, and are good for as long as the database says that moment: a search looks at no
    file whose attributes are here. Each look would let go of the interpreter, and a search over a thousand series wait for it a thousand times.
    """

    def __init__(self, spool: Spool, level: str, keywords: Sequence[str]) -> None:
        self._spool, self._level, self._wanted = spool, level, ["SpecificCharacterSet", *keywords]
        self._tags = {f"{Tag(keyword):08X}" for keyword in keywords}
        self._known: OrderedDict[str, tuple[datetime, Json]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, held: Sequence[Held]) -> list[Json | None]:
        found = self._recall(held)
        folders: dict[str, list[Held]] = {}
        for item in held:
            if item.path not in found:
                folders.setdefault(item.path.rpartition("/")[0], []).append(item)
        # Together, as far as they lie together: a folder's notes are read, and written, at once.
        for folder, items in folders.items():
            fresh = self._look(folder, [item.path for item in items])
            found |= fresh
            self._keep((item, fresh[item.path]) for item in items if item.path in fresh)
        return [found.get(item.path) for item in held]

    def _recall(self, held: Sequence[Held]) -> dict[str, Json]:
        found = {}
        with self._lock:
            for item in held:
                known = self._known.get(item.path)
                if known is not None and known[0] == item.at:
                    self._known.move_to_end(item.path)
                    found[item.path] = known[1]
        return found

    def _keep(self, fresh: Iterable[tuple[Held, Json]]) -> None:
        with self._lock:
            for item, attributes in fresh:
                self._known[item.path] = item.at, attributes
                if len(self._known) > KEPT:
                    self._known.popitem(last=False)

    def _look(self, folder: str, paths: Sequence[str]) -> dict[str, Json]:
        """Return what is noted of files, and read those that were written since, or of which nothing is noted."""
        written = {path: moment for path in paths if (moment := self._written(path)) is not None}
        noted = self._noted(folder) if written else {}
        found = {path: noted[path][1] for path, moment in written.items() if path in noted and noted[path][0] == moment}
        return found | self._read({path: moment for path, moment in written.items() if path not in found})

    def _written(self, path: str) -> int | None:
        try:
            return self._spool.path(path).stat().st_mtime_ns
        except OSError:
            return None

    def _noted(self, folder: str) -> dict[str, tuple[int, Json]]:
        found = {}
        for line in self._spool.notes(folder, self._level).splitlines():
            try:
                name, written, attributes = from_json(line)
            except ValueError:  # cut off by a full disk, or still being written
                continue
            found[f"{folder}/{name}"] = written, attributes
        return found

    def _read(self, written: dict[str, int]) -> dict[str, Json]:
        read: dict[str, Json] = {}
        lines = []
        for path, moment in written.items():
            try:
                dataset = dcmread(self._spool.path(path), specific_tags=list(self._wanted), stop_before_pixels=True, force=True)
                found = as_json(dataset, tags=self._tags, most=CONVERTED)
                line = dumps([path.rpartition("/")[2], moment, found])
            except UNREADABLE:
                continue
            read[path] = found
            lines.append(line + b"\n")
        if lines:
            self._spool.note(next(iter(read)), self._level, b"".join(lines))
        return read
