"""UIDs that follow from what they name: the same input, model and settings give the same objects (DESIGN section 1).

Form: ``2.25.`` and the decimal value of a name-based UUID (PS3.5 B.2; RFC 9562 version 5).
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alnnode.records import Analysis, Node, ReportContext

NAMESPACE = uuid.UUID("5d0c6a4e-3f7b-5a68-9a3c-5f0a1c8f2b11")


def uid(*parts: str) -> str:
    """Return the UID that these parts, in this order, always give."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(0).join(parts)).int}"


def result_uid(analysis: Analysis, context: ReportContext, *role: str) -> str:
    """Return the UID of a result object or of its series."""
    return uid(context.input_digest, analysis.model.digest, context.settings_digest, str(context.revision), *role)


def tracking_identifier(tracking: str) -> str:
    """Return "Lymph node 7KQ2FD": the Tracking Identifier (PS3.16 TID 1501) of a Tracking UID, the same in every report that has the UID.

    A node's number is not in it: in a follow-up the node may have another.
    """
    digest = hashlib.sha256(tracking.encode()).digest()
    return f"Lymph node {base64.b32encode(digest).decode()[:6]}"


def tracking_uid(analysis: Analysis, node: Node) -> str:
    """Return the tracking UID of a node: the reader's own where a reader marked it, else one that its place gives."""
    if node.tracking_uid:
        return node.tracking_uid
    series = str(analysis.header.get("SeriesInstanceUID", ""))
    box = node.box
    return uid("tracking", series, *(str(edge) for edge in (box.k0, box.j0, box.i0, box.k1, box.j1, box.i1)))
