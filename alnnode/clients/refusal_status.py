"""DIMSE statuses of a response that a later retry does not change, for every service user of the node."""

from __future__ import annotations

# PS3.7 Annex C and PS3.4 B.2.3. Every other failure is retried: out of resources, processing failure, and "cannot understand",
# which many PACS also return for temporary faults of their own.
REFUSALS = {
    0x0106: "invalid attribute value",
    0x0112: "no such SOP instance",
    0x0117: "invalid SOP instance UID",
    0x0118: "no such SOP class",
    0x0119: "class-instance conflict",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
}
