"""Audit messages of the listener: which peer sent which study, and which peer was refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from alnnode.audit import codes
from alnnode.audit.study_auditor import StudyAuditor, StudyInstances

if TYPE_CHECKING:
    from pathlib import Path

    from pynetdicom.association import Association

    from alnnode.audit.trail import Trail
    from alnnode.db.rows import NewInstance
    from alnnode.settings import Settings
    from alnnode.spool.spool import Spool


@dataclass(slots=True)
class _Sent:
    """What one association sent."""

    studies: dict[str, StudyInstances] = field(default_factory=dict)
    refused: int = 0


class AssociationAuditor(StudyAuditor):
    """Counts objects by association, and writes one message for each study when the association has ended."""

    def __init__(self, settings: Settings, trail: Trail, spool: Spool) -> None:
        super().__init__(trail)
        self._spool = spool
        self._calling, self._called = settings.calling_ae_titles, settings.called_ae_titles
        self._sent: dict[Association, _Sent] = {}

    def stored(self, association: Association, row: NewInstance) -> None:
        """Count an object that was stored."""
        if self._trail.enabled:
            study = self._sent.setdefault(association, _Sent()).studies.setdefault(row.study_uid, StudyInstances())
            study.classes[row.sop_class_uid] += 1
            study.files = partial(self._files, row)

    def refused(self, association: Association) -> None:
        """Count an object that was refused."""
        if self._trail.enabled:
            self._sent.setdefault(association, _Sent()).refused += 1

    def ended(self, association: Association) -> None:
        """Write what the association sent; an association that ends twice is written once."""
        sent = self._sent.pop(association, None)
        if sent is None:
            return
        sender, address = str(association.requestor.ae_title), str(association.requestor.address or "")
        self._write_received(sender, address, sent.studies, sent.refused)

    def rejected(self, association: Association) -> None:
        """Write that an association was rejected because of an AE title; a full listener is no matter of security."""
        called = association.requestor.primitive.called_ae_title if association.requestor.primitive is not None else ""
        calling = str(association.requestor.ae_title)
        why = ""
        if self._called and called not in self._called:
            why = "called AE title not recognized"
        if self._calling and calling not in self._calling:
            why = "calling AE title not recognized"
        if why:
            self._alert(codes.NODE_AUTHENTICATION, calling, str(association.requestor.address or ""), why)

    def refused_peer(self, address: str, why: str) -> None:
        """Write that a connection was refused before an association request: its address, too many connections, or TLS."""
        self._alert(codes.NODE_AUTHENTICATION, address, address, why)

    def _files(self, row: NewInstance) -> list[Path]:
        # The spool publishes an object before the object leaves the journal: it is in one of the two places.
        return [self._spool.pending_path(row.sop_instance_uid), self._spool.path(row.path)]
