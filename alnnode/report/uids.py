"""UIDs that are derived from the content that they identify (DESIGN section 1).

The UID of an instance is derived from all of its bytes, so that objects that differ by version, node, device or library have different
UIDs. The UID of a series is derived from all inputs of the job and from its results.

Form: ``2.25.`` and the decimal value of a name-based UUID (PS3.5 B.2; RFC 9562 version 5).
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from typing import TYPE_CHECKING

from alnnode import __version__
from alnnode.report.times import moment

if TYPE_CHECKING:
    from alnnode.records import Analysis, Node, ReportContext

NAMESPACE = uuid.UUID("5d0c6a4e-3f7b-5a68-9a3c-5f0a1c8f2b11")


def uid(*parts: str) -> str:
    """Return the UID of these parts in this order; the same parts give the same UID."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(0).join(parts)).int}"


def result_uid(analysis: Analysis, context: ReportContext, *role: str) -> str:
    """Return the UID of a series of results, or the provisional UID of an instance."""
    return uid(
        context.input_digest,
        analysis.model.digest,
        context.settings_digest,
        str(context.revision),
        __version__,
        context.station,
        *(part or "" for part in moment(analysis.header, context)),
        *(context.predecessor or ()),
        _outcome(analysis),
        *role,
    )


def content_uid(provisional: str, content: bytes) -> str:
    """Return the UID of an instance, from its provisional UID and from its bytes with that UID."""
    return uid(provisional, hashlib.sha256(content).hexdigest())


def _outcome(analysis: Analysis) -> str:
    """Return a digest of the computed results: devices with different results write different series."""
    figures = [
        (tuple(finding.node.box.low), finding.prediction.probability, sorted(finding.prediction.members.items()))
        for finding in analysis.findings
    ]
    return hashlib.sha256(repr((figures, analysis.not_analysed)).encode()).hexdigest()


def tracking_identifier(tracking: str) -> str:
    """Return "Lymph node 7KQ2FD": the Tracking Identifier (PS3.16 TID 1501) of a Tracking UID, the same in every report that has the UID.

    It does not contain the number of the node, which may change in a follow-up.
    """
    digest = hashlib.sha256(tracking.encode()).digest()
    return f"Lymph node {base64.b32encode(digest).decode()[:6]}"


def tracking_uid(analysis: Analysis, node: Node) -> str:
    """Return the tracking UID of a node: that of the reader's mark or of the prior report, else one derived from its position."""
    if node.tracking_uid:
        return node.tracking_uid
    series = str(analysis.header.get("SeriesInstanceUID", ""))
    box = node.box
    return uid("tracking", series, *(str(edge) for edge in (box.k0, box.j0, box.i0, box.k1, box.j1, box.i1)))
