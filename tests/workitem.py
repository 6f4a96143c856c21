"""Data sets of workitems in the DICOM JSON model."""

from alnnode.worklist import ups

TRANSACTION = "1.2.826.0.1.3680043.10.9.9"


def attribute(vr, *values):
    return {"vr": vr, "Value": list(values)}


def workitem(study="1.2.3", series="1.2.3.4", *, codes=("DCM:110004",), url=None, **changes):
    """A new workitem for one series."""
    place = {"WADORSRetrievalSequence": attribute("SQ", {"00081190": attribute("UR", url)})} if url else {}
    found = {
        "ProcedureStepState": attribute("CS", "SCHEDULED"),
        "ScheduledProcedureStepPriority": attribute("CS", "MEDIUM"),
        "ProcedureStepLabel": attribute("LO", "Axillary lymph nodes"),
        "ScheduledProcedureStepStartDateTime": attribute("DT", "20260101120000"),
        "InputReadinessState": attribute("CS", "READY"),
        "PatientName": attribute("PN", {"Alphabetic": "SECRET^NAME"}),
        "PatientID": attribute("LO", "SECRET-ID"),
        "ScheduledWorkitemCodeSequence": attribute(
            "SQ", *(ups.code(one.partition(":")[2], one.partition(":")[0], "Analysis") for one in codes)
        ),
        "InputInformationSequence": attribute(
            "SQ",
            {
                "0020000D": attribute("UI", study),
                "0020000E": attribute("UI", series),
                ups.tag("TypeOfInstances"): attribute("CS", "DICOM"),
                **{ups.tag(keyword): item for keyword, item in place.items()},
            },
        ),
        **changes,
    }
    return {ups.tag(keyword): item for keyword, item in found.items() if item is not None}


def action(state, transaction=TRANSACTION):
    """The body of a request to change the state."""
    found = {ups.STATE: attribute("CS", state)}
    return [found | ({ups.TRANSACTION: attribute("UI", transaction)} if transaction else {})]


def performed(*, output=True):
    """The attributes that another performer writes before it completes a workitem."""
    found = {
        "PerformedProcedureStepStartDateTime": attribute("DT", "20260101120000"),
        "PerformedProcedureStepEndDateTime": attribute("DT", "20260101120100"),
        "PerformedWorkitemCodeSequence": attribute("SQ", ups.code("110004", "DCM", "Computer Aided Detection")),
        "PerformedStationNameCodeSequence": attribute("SQ", ups.code("OTHER", "L", "Other")),
        **({"OutputInformationSequence": {"vr": "SQ"}} if output else {}),
    }
    item = {ups.tag(keyword): value for keyword, value in found.items()}
    return {ups.PERFORMED: attribute("SQ", item)}


def reason():
    """The reason for the cancellation, as the performer of a workitem writes it."""
    codes = attribute("SQ", ups.code("110501", "DCM", "Equipment failure"))
    return {ups.PROGRESS: attribute("SQ", {ups.tag("ProcedureStepDiscontinuationReasonCodeSequence"): codes})}
