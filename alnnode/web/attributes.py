"""Attributes of the objects in the spool, read from the objects and kept in memory for a while: no patient data are in the database."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from pydicom import dcmread
from pydicom.tag import Tag

if TYPE_CHECKING:
    from pydicom import Dataset

    from alnnode.store.spool import Spool

Json = dict[str, dict[str, Any]]
KEPT = 20_000  # objects, some 2 kB each

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
_WANTED = ["SpecificCharacterSet", *STUDY, *SERIES, *INSTANCE]
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


class Attributes:
    """Safe to share between threads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._known: OrderedDict[str, Json] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, path: str) -> Json:
        """Return what searches ask of an object, in the DICOM JSON model (PS3.18 Annex F).

        Raises:
            OSError: the file is gone.
        """
        with self._lock:
            known = self._known.get(path)
            if known is not None:
                self._known.move_to_end(path)
                return known
        found = as_json(dcmread(self._spool.path(path), specific_tags=list(_WANTED), stop_before_pixels=True, force=True))
        with self._lock:
            self._known[path] = found
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return found

    def header(self, path: str) -> Dataset:
        """Read everything but the pixel data.

        Raises:
            OSError: the file is gone.
        """
        return dcmread(self._spool.path(path), stop_before_pixels=True, force=True)


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
