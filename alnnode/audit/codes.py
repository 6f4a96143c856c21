"""Codes of audit messages (PS3.15 section A.5.3; PS3.16 CID 400 to 404 and Annex D)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Code(NamedTuple):
    """A coded value as the schema writes it (PS3.15 section A.5.1, CodedValueType)."""

    value: str
    scheme: str
    meaning: str


class Outcome(IntEnum):
    """Event Outcome Indicator (PS3.15 section A.5.1)."""

    SUCCESS = 0
    MINOR_FAILURE = 4  # the action may be retried
    SERIOUS_FAILURE = 8  # the action will not be retried


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


APPLICATION_ACTIVITY = _dcm("110100", "Application Activity")
BEGIN_TRANSFERRING = _dcm("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = _dcm("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = _dcm("110104", "DICOM Instances Transferred")
STUDY_DELETED = _dcm("110105", "DICOM Study Deleted")
QUERY = _dcm("110112", "Query")
SECURITY_ALERT = _dcm("110113", "Security Alert")
USER_AUTHENTICATION = _dcm("110114", "User Authentication")

APPLICATION_START = _dcm("110120", "Application Start")
APPLICATION_STOP = _dcm("110121", "Application Stop")
LOGIN = _dcm("110122", "Login")
LOGOUT = _dcm("110123", "Logout")
NODE_AUTHENTICATION = _dcm("110126", "Node Authentication")
RESTRICTED_FUNCTION = _dcm("110132", "Use of Restricted Function")

APPLICATION = _dcm("110150", "Application")
DESTINATION = _dcm("110152", "Destination Role ID")
SOURCE = _dcm("110153", "Source Role ID")

STUDY_UID = _dcm("110180", "Study Instance UID")
SOP_CLASS_UID = _dcm("110181", "SOP Class UID")
NODE_ID = _dcm("110182", "Node ID")
PATIENT_NUMBER = Code("2", "RFC-3881", "Patient Number")
