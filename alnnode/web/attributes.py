"""Attributes of the objects in the spool: read from the objects, noted beside them, and kept in memory for a while.

No patient data are in the database, and a search over a thousand studies cannot read a thousand files. So what was read once is
noted in the object's own folder, and goes when the object goes (docs/adr/0003).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

from pydantic_core import from_json, to_json
from pydicom import dcmread
from pydicom.tag import Tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import Dataset

    from alnnode.store.spool import Spool

Json = dict[str, dict[str, Any]]
KEPT = 20_000  # series, and as many instances, of 1 to 4 kB each

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
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


class Held(Protocol):
    """Something in the spool."""

    @property
    def path(self) -> str: ...  # noqa: D102 - the attribute's own name


class Attributes:
    """Safe to share between threads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._series = _Shelf(spool, "series", (*STUDY, *SERIES))
        self._instances = _Shelf(spool, "instances", INSTANCE)

    def of_series(self, held: Sequence[Held]) -> list[Json | None]:
        """Return the attributes of study and series from one object of each series; None where it is gone."""
        return self._series.of([item.path for item in held])

    def of_instances(self, held: Sequence[Held]) -> list[Json | None]:
        """Return the attributes of instances; None for those that are gone."""
        return self._instances.of([item.path for item in held])

    def header(self, path: str) -> Dataset:
        """Read everything but the pixel data.

        Raises:
            OSError: the file is gone.
        """
        return dcmread(self._spool.path(path), stop_before_pixels=True, force=True)


class _Shelf:
    """Attributes of one level, in the DICOM JSON model (PS3.18 Annex F), each with the moment its file was written."""

    def __init__(self, spool: Spool, level: str, keywords: Sequence[str]) -> None:
        self._spool, self._level, self._wanted = spool, level, ["SpecificCharacterSet", *keywords]
        self._tags = {f"{Tag(keyword):08X}" for keyword in keywords}
        self._known: OrderedDict[str, tuple[int, Json]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, paths: Sequence[str]) -> list[Json | None]:
        written = {path: self._written(path) for path in paths}
        missing = [path for path in paths if written[path] is not None and self._get(path, written[path]) is None]
        folders = dict.fromkeys(path.rpartition("/")[0] for path in missing)
        for folder in folders:
            self._load(folder)
        unread = [path for path in missing if self._get(path, written[path]) is None]
        # Together, as far as they lie together: a folder's notes are written at once.
        for folder in dict.fromkeys(path.rpartition("/")[0] for path in unread):
            self._read([path for path in unread if path.startswith(f"{folder}/")])
        return [self._get(path, written[path]) for path in paths]

    def _written(self, path: str) -> int | None:
        try:
            return self._spool.path(path).stat().st_mtime_ns
        except OSError:
            return None

    def _get(self, path: str, written: int | None) -> Json | None:
        with self._lock:
            known = self._known.get(path)
            if known is None or known[0] != written:
                return None
            self._known.move_to_end(path)
            return known[1]

    def _keep(self, path: str, written: int, found: Json) -> None:
        with self._lock:
            self._known[path] = written, found
            if len(self._known) > KEPT:
                self._known.popitem(last=False)

    def _load(self, folder: str) -> None:
        for line in self._spool.notes(folder, self._level).splitlines():
            try:
                name, written, found = from_json(line)
            except ValueError:  # cut off by a full disk, or still being written
                continue
            self._keep(f"{folder}/{name}", written, found)

    def _read(self, paths: Sequence[str]) -> None:
        lines = []
        for path in paths:
            written = self._written(path)
            try:
                dataset = dcmread(self._spool.path(path), specific_tags=list(self._wanted), stop_before_pixels=True, force=True)
            except OSError:
                continue
            if written is not None:
                found = {tag: value for tag, value in as_json(dataset).items() if tag in self._tags}
                self._keep(path, written, found)
                lines.append(to_json([path.rpartition("/")[2], written, found]) + b"\n")
        if lines:
            self._spool.note(paths[0], self._level, b"".join(lines))


def as_json(dataset: Dataset, bulk: str = "") -> Json:
    """Return a data set in the DICOM JSON model; binary values become references below the URL ``bulk``, or are left out."""
    found: Json = {}
    for element in dataset:
        if element.tag in _PIXELS or element.tag.group == 2:
            continue
        try:
            found[f"{element.tag:08X}"] = _element(element, bulk)
        # A value that its VR does not allow: the rest of the object is still worth showing.
        except (ValueError, TypeError, AttributeError, UnicodeError, OverflowError, LookupError):
            found[f"{element.tag:08X}"] = {"vr": element.VR}
    return found


def _element(element: Any, bulk: str) -> dict[str, Any]:
    path = f"{bulk}/{element.tag:08X}"
    if element.VR == "SQ":
        items = [as_json(item, f"{path}/{number}" if bulk else "") for number, item in enumerate(element.value)]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if element.VR in {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}:
        if element.value in {b"", None} or not bulk:
            return {"vr": element.VR}
        return {"vr": element.VR, "BulkDataURI": path}
    written: dict[str, Any] = element.to_json_dict(None, 1024)
    return written
