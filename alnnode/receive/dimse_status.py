"""DIMSE statuses that the node answers a C-STORE with, and why (PS3.4 Annex B.2.3, PS3.7 Annex C).

A second object under a known UID gets 0xC004 and not 0x0111 (Duplicate SOP Instance): many senders count 0x0111 as success, and
would then believe that the node holds what it does not.
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Status of a C-STORE response."""

    SUCCESS = 0x0000  # the object and the knowledge of it survive a power cut; also when it, or the same image in another encoding, was here before
    OUT_OF_RESOURCES = 0xA700  # disk or database cannot take it now, or it is larger than the node allows
    SOP_CLASS_MISMATCH = 0xA900  # the data set is of another SOP class than the command says
    CANNOT_DECODE = 0xC000  # the data set is no DICOM data set in the negotiated transfer syntax, or is cut off
    INVALID_UID = 0xC001  # a UID is missing or not valid, or command and data set differ
    CONFLICT = 0xC004  # another object, not only another encoding, has this SOP Instance UID already; the first one is kept


STUDY_MISMATCH = 0xA901  # STOW-RS only: the data set is of another study than the URL of the request
