"""Statuses of the node's C-STORE responses, and their reasons (PS3.4 Annex B.2.3, PS3.7 Annex C).

A different object with a known SOP Instance UID gets 0xC004 and not 0x0111 (Duplicate SOP Instance): many senders count 0x0111 as
success, and would assume that the node has the second object.
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Status of a C-STORE response."""

    SUCCESS = (
        0x0000  # the object survives a power cut; also when the node already has it, or the same image in another encoding
    )
    OUT_OF_RESOURCES = 0xA700  # the disk or the database cannot store it now, or it is larger than the node allows
    SOP_CLASS_MISMATCH = 0xA900  # data set and command have different SOP classes
    CANNOT_DECODE = 0xC000  # the bytes are not a complete data set in the negotiated transfer syntax
    INVALID_UID = 0xC001  # a UID is missing or not valid, or differs between command and data set
    CONFLICT = 0xC004  # a different object has this SOP Instance UID already; the first one stays


STUDY_MISMATCH = 0xA901  # STOW-RS only: data set and URL have different studies
