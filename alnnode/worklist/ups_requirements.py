"""Check and complete the data set of a Unified Procedure Step (PS3.4 Table CC.2.5-3), as far as the standard requires it of an SCP. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.datadict import keyword_for_tag

from alnnode.errors import WorkitemRefused
from alnnode.worklist.ups import (
    CODES,
    INPUT,
    LABEL,
    MODIFIED,
    PERFORMED,
    PROGRESS,
    PUSH_SOP_CLASS,
    READINESS,
    SOP_CLASS,
    SOP_INSTANCE,
    START,
    STATE,
    TRANSACTION,
    UpsState,
    UpsStatus,
    date_time,
    first_item,
    parse_date_time,
    tag,
    text,
    value,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from alnnode.worklist.ups import Json

_TYPE_1 = {  # type 1 at creation, with the allowed values
    tag("ScheduledProcedureStepPriority"): ("HIGH", "MEDIUM", "LOW"),
    tag("ProcedureStepLabel"): (),
    START: (),
    READINESS: ("INCOMPLETE", "UNAVAILABLE", "READY"),
}
_EMPTY = (PROGRESS, PERFORMED, TRANSACTION)  # must be empty at creation
_TYPE_2 = {  # type 2 at creation, with their VR: added if the requester omits them
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
# N-SET must not change these: the patient, the request, and what other operations change.
_FIXED = frozenset(
    {
        SOP_CLASS, SOP_INSTANCE, STATE, MODIFIED,
        *map(tag, ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AdmissionID",
                   "IssuerOfAdmissionIDSequence", "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence",
                   "ReferencedRequestSequence", "ReplacedProcedureStepSequence", "StudyInstanceUID")),
    }
)  # fmt: skip
_PERFORMED_TYPE_1 = (
    "PerformedProcedureStepStartDateTime",
    "PerformedProcedureStepEndDateTime",
    "PerformedWorkitemCodeSequence",
    "PerformedStationNameCodeSequence",
)


def created(document: Json, uid: str, now: datetime) -> tuple[Json, bool]:
    """Check and complete the data set of a new workitem (N-CREATE); return it, and whether attributes were added.

    Raises:
        WorkitemRefused: a required attribute is missing, has a value that is not allowed, or must be empty.
    """
    if value(document, STATE) != UpsState.SCHEDULED:
        raise WorkitemRefused(UpsStatus.NOT_SCHEDULED, 'The provided value of UPS State was not "SCHEDULED"')
    for key, allowed in _TYPE_1.items():
        given = value(document, key)
        if not given:
            raise WorkitemRefused(UpsStatus.MISSING_ATTRIBUTE, f"{keyword_for_tag(int(key, 16))} must have a value")
        if allowed and given not in allowed:
            raise WorkitemRefused(
                UpsStatus.INVALID_VALUE, f"{keyword_for_tag(int(key, 16))} must be one of {', '.join(allowed)}"
            )
    if parse_date_time(value(document, START)) is None:
        raise WorkitemRefused(UpsStatus.INVALID_VALUE, "ScheduledProcedureStepStartDateTime is not a valid date and time")
    filled = [keyword_for_tag(int(key, 16)) for key in _EMPTY if values(document, key)]
    if filled:
        raise WorkitemRefused(UpsStatus.INVALID_VALUE, f"{', '.join(filled)} must be empty in a new workitem")
    attributes = {key: item for key, item in document.items() if key != TRANSACTION}
    complete: Json = {key: {"vr": vr} for key, vr in _TYPE_2.items()} | attributes
    if not value(complete, LABEL):
        complete[LABEL] = text("LO", "DEFAULT")
    modified = len(complete) > len(document)
    complete |= {SOP_CLASS: text("UI", PUSH_SOP_CLASS), SOP_INSTANCE: text("UI", uid), MODIFIED: text("DT", date_time(now))}
    return dict(sorted(complete.items())), modified


def updated(document: Json, changes: Json, now: datetime) -> Json:
    """Return the document with the attributes of ``changes`` replaced (N-SET).

    Raises:
        WorkitemRefused: an update must not change an attribute, or its new value is not allowed.
    """
    fixed = [key for key in changes if key in _FIXED and changes[key].get("Value") != document.get(key, {}).get("Value")]
    if fixed:
        raise WorkitemRefused(UpsStatus.INVALID_VALUE, f"{keyword_for_tag(int(fixed[0], 16))} cannot be changed by an update")
    for key, allowed in _TYPE_1.items():
        if key in changes and (not value(changes, key) or (allowed and value(changes, key) not in allowed)):
            raise WorkitemRefused(
                UpsStatus.INVALID_VALUE, f"{keyword_for_tag(int(key, 16))} must have one of the allowed values"
            )
    replaced = {key: item for key, item in changes.items() if key != TRANSACTION}
    return dict(sorted({**document, **replaced, MODIFIED: text("DT", date_time(now))}.items()))


def check_final(document: Json, state: UpsState) -> None:
    """Check the final state requirements (PS3.4 Table CC.2.5-3).

    Raises:
        WorkitemRefused: a required attribute is missing.
    """
    missing: Iterable[str]
    if state is UpsState.COMPLETED:
        performed = first_item(document, PERFORMED)
        missing = [keyword for keyword in _PERFORMED_TYPE_1 if not values(performed, tag(keyword))]
        missing += [] if tag("OutputInformationSequence") in performed else ["OutputInformationSequence"]
    else:
        progress = first_item(document, PROGRESS)
        wanted = "ProcedureStepDiscontinuationReasonCodeSequence"
        missing = [] if values(progress, tag(wanted)) else [wanted]
    if missing:
        raise WorkitemRefused(
            UpsStatus.FINAL_STATE_NOT_MET, f"The UPS has not met final state requirements: {', '.join(missing)} missing"
        )
