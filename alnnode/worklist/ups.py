"""What a Unified Procedure Step must hold, in the DICOM JSON model: PS3.4 Table CC.2.5-3, as far as an SCP has to check it. No I/O."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

from pydicom.datadict import keyword_for_tag
from pydicom.tag import Tag

from alnnode.errors import WorkitemRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

Json = dict[str, dict[str, Any]]

PUSH_SOP_CLASS, EVENT_SOP_CLASS = "1.2.840.10008.5.1.4.34.6.1", "1.2.840.10008.5.1.4.34.6.4"
GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"


class State(StrEnum):
    """Procedure Step State (0074,1000)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


FINAL = (State.COMPLETED, State.CANCELED)


class Status(IntEnum):
    """PS3.4 CC.2.1.4, CC.2.2.4 and CC.2.6.4; PS3.7 Annex C."""

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
    NOBODY_TO_ASK = 0xC312
    DELETED = 0xC3FF  # of our own: PS3.18 tells "once existed" (410) from "never existed" (404)


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
_ONE = {  # type 1 at creation, with their VR and allowed values
    tag("ScheduledProcedureStepPriority"): ("HIGH", "MEDIUM", "LOW"),
    tag("ProcedureStepLabel"): (),
    START: (),
    READINESS: ("INCOMPLETE", "UNAVAILABLE", "READY"),
}
_EMPTY = (PROGRESS, PERFORMED, TRANSACTION)  # at creation
_TWO = {  # type 2 at creation: added when they are left out
    **{
        tag(keyword): vr
        for keyword, vr in (
            ("PatientName", "PN"), ("PatientID", "LO"), ("PatientBirthDate", "DA"), ("PatientSex", "CS"),
            ("AdmissionID", "LO"), ("AdmittingDiagnosesDescription", "LO"), ("AdmittingDiagnosesCodeSequence", "SQ"),
            ("ReferencedRequestSequence", "SQ"), ("CommentsOnTheScheduledProcedureStep", "LT"),
            ("ScheduledStationNameCodeSequence", "SQ"), ("ScheduledStationClassCodeSequence", "SQ"),
            ("ScheduledStationGeographicLocationCodeSequence", "SQ"),
        )
    },
    CODES: "SQ", INPUT: "SQ", PROGRESS: "SQ", PERFORMED: "SQ",
}  # fmt: skip
# What N-SET may not change: whose step it is, what it answers, and what other requests are for.
_FIXED = frozenset(
    {
        SOP_CLASS, SOP_INSTANCE, STATE, MODIFIED,
        *map(tag, ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AdmissionID",
                   "IssuerOfAdmissionIDSequence", "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence",
                   "ReferencedRequestSequence", "ReplacedProcedureStepSequence", "StudyInstanceUID")),
    }
)  # fmt: skip
_PERFORMED_ONE = (
    "PerformedProcedureStepStartDateTime",
    "PerformedProcedureStepEndDateTime",
    "PerformedWorkitemCodeSequence",
    "PerformedStationNameCodeSequence",
)


def values(document: Json, key: str) -> list[Any]:
    """Return the values of an attribute; empty when it is absent or empty."""
    found = document.get(key, {}).get("Value", [])
    return list(found) if isinstance(found, list) else []


def value(document: Json, key: str) -> str:
    """Return the first value of an attribute as text."""
    return str(next(iter(values(document, key)), None) or "")


def items(document: Json, key: str) -> list[Json]:
    """Return the items of a sequence."""
    return [item for item in values(document, key) if isinstance(item, dict)]


def text(vr: str, content: object) -> dict[str, Any]:
    """Return an attribute of one value."""
    return {"vr": vr, "Value": [content]}


def sequence(*content: Json) -> dict[str, Any]:
    """Return a sequence."""
    return {"vr": "SQ", "Value": list(content)} if content else {"vr": "SQ"}


def code(code_value: str, scheme: str, meaning: str) -> Json:
    """Return a code item (PS3.3 section 8)."""
    return {"00080100": text("SH", code_value), "00080102": text("SH", scheme), "00080104": text("LO", meaning)}


def date_time(moment: datetime) -> str:
    """Spell a moment as DT, in UTC."""
    return f"{moment.astimezone(UTC):%Y%m%d%H%M%S}+0000"


def moment_of(spelt: str) -> datetime | None:
    """Read a DT (PS3.5 section 6.2); without a zone it is this host's time. None when it is none."""
    match = re.fullmatch(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.\d{1,6})?([+-]\d{4})?", spelt.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, zone = match.groups()
    try:
        # A leap second (60) is read as the second before.
        found = datetime(  # noqa: DTZ001 - a zone is added below
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), min(59, int(second or 0))
        )
        return datetime.strptime(f"{found:%Y%m%d%H%M%S}{zone}", "%Y%m%d%H%M%S%z") if zone else found.astimezone()
    except (ValueError, OverflowError):
        return None


def created(document: Json, uid: str, now: datetime) -> tuple[Json, bool]:
    """Check a new workitem and complete it; also whether anything had to be added.

    Raises:
        WorkitemRefused: an attribute that must be there is missing, has an impossible value, or must not be there yet.
    """
    if value(document, STATE) != State.SCHEDULED:
        raise WorkitemRefused(Status.NOT_SCHEDULED, 'The provided value of UPS State was not "SCHEDULED"')
    for key, allowed in _ONE.items():
        given = value(document, key)
        if not given:
            raise WorkitemRefused(Status.MISSING_ATTRIBUTE, f"{keyword_for_tag(int(key, 16))} must have a value")
        if allowed and given not in allowed:
            raise WorkitemRefused(Status.INVALID_VALUE, f"{keyword_for_tag(int(key, 16))} is one of {', '.join(allowed)}")
    if moment_of(value(document, START)) is None:
        raise WorkitemRefused(Status.INVALID_VALUE, "ScheduledProcedureStepStartDateTime is no date and time")
    filled = [keyword_for_tag(int(key, 16)) for key in _EMPTY if values(document, key)]
    if filled:
        raise WorkitemRefused(Status.INVALID_VALUE, f"{', '.join(filled)} must be empty in a new workitem")
    whole = {key: {"vr": vr} for key, vr in _TWO.items()} | {key: item for key, item in document.items() if key != TRANSACTION}
    if not value(whole, LABEL):
        whole[LABEL] = text("LO", "DEFAULT")
    modified = len(whole) > len(document)
    whole |= {SOP_CLASS: text("UI", PUSH_SOP_CLASS), SOP_INSTANCE: text("UI", uid), MODIFIED: text("DT", date_time(now))}
    return dict(sorted(whole.items())), modified


def updated(document: Json, changes: Json, now: datetime) -> Json:
    """Return the document with whole attributes replaced (N-SET).

    Raises:
        WorkitemRefused: an attribute may not be changed so.
    """
    fixed = [key for key in changes if key in _FIXED and changes[key].get("Value") != document.get(key, {}).get("Value")]
    if fixed:
        raise WorkitemRefused(Status.INVALID_VALUE, f"{keyword_for_tag(int(fixed[0], 16))} cannot be changed by an update")
    for key, allowed in _ONE.items():
        if key in changes and (not value(changes, key) or (allowed and value(changes, key) not in allowed)):
            raise WorkitemRefused(Status.INVALID_VALUE, f"{keyword_for_tag(int(key, 16))} has no value that is allowed")
    kept = {key: item for key, item in changes.items() if key != TRANSACTION}
    return dict(sorted({**document, **kept, MODIFIED: text("DT", date_time(now))}.items()))


def check_final(document: Json, state: State) -> None:
    """Check the final state requirements.

    Raises:
        WorkitemRefused: something is missing.
    """
    missing: Iterable[str]
    if state is State.COMPLETED:
        performed = next(iter(items(document, PERFORMED)), {})
        missing = [keyword for keyword in _PERFORMED_ONE if not values(performed, tag(keyword))]
        missing += [] if tag("OutputInformationSequence") in performed else ["OutputInformationSequence"]
    else:
        progress = next(iter(items(document, PROGRESS)), {})
        wanted = "ProcedureStepDiscontinuationReasonCodeSequence"
        missing = [] if values(progress, tag(wanted)) else [wanted]
    if missing:
        raise WorkitemRefused(
            Status.FINAL_STATE_NOT_MET, f"The UPS has not met final state requirements: {', '.join(missing)} missing"
        )


def progressed(document: Json, **attributes: dict[str, Any]) -> Json:
    """Return the document with attributes (by keyword) of its Procedure Step Progress Information replaced."""
    progress = next(iter(items(document, PROGRESS)), {})
    progress = {**progress, **{tag(keyword): content for keyword, content in attributes.items()}}
    return {**document, PROGRESS: sequence(dict(sorted(progress.items())))}
