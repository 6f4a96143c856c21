"""What the listener tells the audit trail: who sent which study, and who was not let in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from alnnode.audit import codes
from alnnode.audit.events import study
from alnnode.audit.repeated import Seldom
from alnnode.audit.trail import patient_in

if TYPE_CHECKING:
    from pynetdicom.association import Association

    from alnnode.audit.message import Thing
    from alnnode.audit.trail import Trail
    from alnnode.db.rows import NewInstance
    from alnnode.settings import Settings
    from alnnode.spool.spool import Spool

ALERTED = 60.0  # seconds in which the same refusal of the same peer is told once
NO_STUDY = "unknown"  # of objects that were refused, which were not read that far


@dataclass(slots=True)
class _Share:
    """What one association sent of one study."""

    classes: Counter[str] = field(default_factory=Counter)
    one: NewInstance | None = None


@dataclass(slots=True)
class _Sent:
    studies: dict[str, _Share] = field(default_factory=dict)
    refused: int = 0


class Witness:
    """Counts by association, and writes one message for each study when the association has ended."""

    def __init__(self, settings: Settings, trail: Trail, spool: Spool) -> None:
        self._trail, self._spool = trail, spool
        self._calling, self._called = settings.calling_ae_titles, settings.called_ae_titles
        self._sent: dict[Association, _Sent] = {}
        self._alerted = Seldom(ALERTED)

    def stored(self, association: Association, row: NewInstance) -> None:
        """Note an object that was kept."""
        if self._trail.enabled:
            share = self._sent.setdefault(association, _Sent()).studies.setdefault(row.study_uid, _Share())
            share.classes[row.sop_class_uid] += 1
            share.one = row

    def refused(self, association: Association) -> None:
        """Note an object that was not."""
        if self._trail.enabled:
            self._sent.setdefault(association, _Sent()).refused += 1

    def ended(self, association: Association) -> None:
        """Write what the association did; what ended twice is written once."""
        sent = self._sent.pop(association, None)
        if sent is None:
            return
        sender, address = str(association.requestor.ae_title), str(association.requestor.address or "")
        refused = sent.refused
        for uid, share in (sent.studies or {NO_STUDY: _Share()}).items():
            message = self._trail.events.received(sender, address, study(uid, share.classes), refused)
            self._trail.put(message, None if share.one is None else partial(self._patient, share.one))
            refused = 0  # nobody knows of which study they were: told once

    def rejected(self, association: Association) -> None:
        """Write that an association was refused because of a title; a full listener is no matter of security."""
        called = association.requestor.primitive.called_ae_title if association.requestor.primitive is not None else ""
        calling = str(association.requestor.ae_title)
        why = ""
        if self._called and called not in self._called:
            why = "called AE title not recognized"
        if self._calling and calling not in self._calling:
            why = "calling AE title not recognized"
        if why:
            self._alert(calling, str(association.requestor.address or ""), why)

    def refused_peer(self, address: str, why: str) -> None:
        """Write that a peer was refused before it said who it is: its address, too many connections, or TLS."""
        self._alert(address, address, why)

    def _alert(self, peer: str, address: str, why: str) -> None:
        if self._alerted.first(peer, address, why):
            self._trail.put(self._trail.events.alert(codes.NODE_AUTHENTICATION, peer, address, why))

    def _patient(self, row: NewInstance) -> Thing | None:
        # Published before it leaves the journal: one of the two is there.
        return patient_in([self._spool.pending_path(row.sop_instance_uid), self._spool.path(row.path)])
