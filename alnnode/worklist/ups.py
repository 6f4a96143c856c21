"""The states, statuses and attributes of a Unified Procedure Step (PS3.4 Annex CC), in the DICOM JSON model (PS3.18 Annex F). No I/O."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any

from pydicom.tag import Tag

Json = dict[str, dict[str, Any]]

PUSH_SOP_CLASS, EVENT_SOP_CLASS = "1.2.840.10008.5.1.4.34.6.1", "1.2.840.10008.5.1.4.34.6.4"
GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"  # global subscriptions (PS3.4 CC.2.3)


class UpsState(StrEnum):
    """Procedure Step State (0074,1000)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


FINAL_STATES = (UpsState.COMPLETED, UpsState.CANCELED)


class UpsStatus(IntEnum):
    """The statuses of PS3.4 CC.2.1.4, CC.2.2.4 and CC.2.6.4, and of PS3.7 Annex C."""

    ALREADY_CANCELED = 0xB304
    ALREADY_COMPLETED = 0xB306
    DUPLICATE = 0x0111
    INVALID_VALUE = 0x0106
    MISSING_ATTRIBUTE = 0x0120
    NO_LONGER_UPDATED = 0xC300
    WRONG_TRANSACTION = 0xC301
    ALREADY_IN_PROGRESS = 0xC302
    ONLY_BY_CREATION = 0xC303
    FINAL_STATE_NOT_MET = 0xC304
    NO_SUCH_WORKITEM = 0xC307
    NOT_SCHEDULED = 0xC309
    NOT_IN_PROGRESS = 0xC310
    IS_COMPLETED = 0xC311
    PERFORMER_NOT_REACHABLE = 0xC312
    RESOURCES = 0x0213
    DELETED = 0xC3FF  # not of the standard: PS3.18 requires 410 for a deleted workitem and 404 for an unknown one


def tag(keyword: str) -> str:
    """Return the key of an attribute in the DICOM JSON model."""
    return f"{Tag(keyword):08X}"


STATE, SOP_CLASS, SOP_INSTANCE, TRANSACTION = map(
    tag, ("ProcedureStepState", "SOPClassUID", "SOPInstanceUID", "TransactionUID")
)
PROGRESS, PERFORMED = tag("ProcedureStepProgressInformationSequence"), tag("UnifiedProcedureStepPerformedProcedureSequence")
START, INPUT, READINESS = (
    tag("ScheduledProcedureStepStartDateTime"),
    tag("InputInformationSequence"),
    tag("InputReadinessState"),
)
CODES, MODIFIED, LABEL = (
    tag("ScheduledWorkitemCodeSequence"),
    tag("ScheduledProcedureStepModificationDateTime"),
    tag("WorklistLabel"),
)


def values(document: Json, key: str) -> list[Any]:
    """Return the values of an attribute; none if it is absent or empty."""
    found = document.get(key, {}).get("Value", [])
    return list(found) if isinstance(found, list) else []


def value(document: Json, key: str) -> str:
    """Return the first value of an attribute as text; empty if there is none."""
    return str(next(iter(values(document, key)), None) or "")


def items(document: Json, key: str) -> list[Json]:
    """Return the items of a sequence."""
    return [item for item in values(document, key) if isinstance(item, dict)]


def first_item(document: Json, key: str) -> Json:
    """Return the first item of a sequence; an empty data set if there is none."""
    return next(iter(items(document, key)), {})


def text(vr: str, content: object) -> dict[str, Any]:
    """Return an attribute with one value."""
    return {"vr": vr, "Value": [content]}


def sequence(*content: Json) -> dict[str, Any]:
    """Return a sequence of these items."""
    return {"vr": "SQ", "Value": list(content)} if content else {"vr": "SQ"}


def code(code_value: str, scheme: str, meaning: str) -> Json:
    """Return a code item (PS3.3 section 8)."""
    return {"00080100": text("SH", code_value), "00080102": text("SH", scheme), "00080104": text("LO", meaning)}


def date_time(time: datetime) -> str:
    """Return a time as a DT value in UTC."""
    return f"{time.astimezone(UTC):%Y%m%d%H%M%S}+0000"


def parse_date_time(written: str) -> datetime | None:
    """Read a DT value (PS3.5 section 6.2); None if it is not valid. A value without an offset is in the time zone of this host."""
    match = re.fullmatch(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.\d{1,6})?([+-]\d{4})?", written.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, zone = match.groups()
    try:
        # A leap second (60) counts as the second before it.
        found = datetime(  # noqa: DTZ001 - a zone is added below
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), min(59, int(second or 0))
        )
        return datetime.strptime(f"{found:%Y%m%d%H%M%S}{zone}", "%Y%m%d%H%M%S%z") if zone else found.astimezone()
    except (ValueError, OverflowError):
        return None


def with_progress(document: Json, **attributes: dict[str, Any]) -> Json:
    """Return the document with attributes (by keyword) of its Procedure Step Progress Information replaced."""
    progress = {**first_item(document, PROGRESS), **{tag(keyword): content for keyword, content in attributes.items()}}
    return {**document, PROGRESS: sequence(dict(sorted(progress.items())))}
