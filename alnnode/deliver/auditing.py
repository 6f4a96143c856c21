"""Audit messages of the delivering worker: which results of which study were sent to which destination, and with what outcome."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from alnnode.audit.codes import Outcome
from alnnode.audit.events import study
from alnnode.audit.study_auditor import UNKNOWN, StudyAuditor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from alnnode.audit.trail import Trail
    from alnnode.db.rows import DeliveryClaim
    from alnnode.settings import Destination
    from alnnode.spool.spool import Spool


class DeliveryAuditor(StudyAuditor):
    """Writes the messages of one attempt at one delivery.

    Args:
        claim: of the delivery.
        destination: the settings of its destination; None when they no longer name it.
        trail: gets the messages.
        spool: holds the result files, from which the patient is read.

    A failed attempt that repeats is written only the first time and the last time: an outage would otherwise fill the trail. A storage
    commitment request transfers no objects, and is not written.
    """

    def __init__(self, claim: DeliveryClaim, destination: Destination | None, trail: Trail, spool: Spool) -> None:
        super().__init__(trail)
        self._claim, self._spool = claim, spool
        self._address, self._receiver = "", claim.destination
        if destination is not None and destination.kind == "cstore":
            self._address, self._receiver = destination.host, destination.ae_title
        elif destination is not None:
            self._address = urlsplit(destination.url).hostname or ""
        self._attempts = destination.retry_attempts if destination is not None else 1
        classes = Counter(row.sop_class_uid for row in claim.files)
        uids = sorted({row.study_instance_uid for row in claim.files})
        self._study = study(uids[0] if uids else UNKNOWN, classes)

    def begun(self) -> None:
        """Write that the transfer begins."""
        if self._claim.attempt == 1 and not self._claim.sent:
            self._write(self._events.sending(self._receiver, self._address, self._study), self._files)

    def deferred(self, why: str) -> None:
        """Write that the transfer failed: a minor failure while attempts are left, a serious one after the last."""
        if self._claim.attempt >= self._attempts:
            self._ended(Outcome.SERIOUS_FAILURE, why)
        elif self._claim.attempt == 1:
            self._ended(Outcome.MINOR_FAILURE, why)

    def refused(self, why: str) -> None:
        """Write that the transfer failed and that an operator has to act."""
        self._ended(Outcome.SERIOUS_FAILURE, why)

    def delivered(self) -> None:
        """Write that the destination stored the objects."""
        self._ended(Outcome.SUCCESS, "")

    def _ended(self, outcome: Outcome, why: str) -> None:
        if self._claim.sent:
            return
        self._write(self._events.sent(self._receiver, self._address, self._study, outcome, why), self._files)

    def _files(self) -> Iterator[Path]:
        return (self._spool.path(row.path) for row in self._claim.files)
