"""What the delivering worker tells the audit trail: which results of which study went where, and with what outcome."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from alnnode.audit.codes import Outcome
from alnnode.audit.events import study
from alnnode.audit.trail import patient_in

if TYPE_CHECKING:
    from alnnode.audit.message import Thing
    from alnnode.db.rows import DeliveryClaim
    from workers.analyst import Runtime


class Account:
    """Of one attempt at one delivery.

    An outage would otherwise fill the trail: an attempt that is repeated is written the first time only. Asking a destination to commit
    what it has is no transfer, and is not written.
    """

    def __init__(self, claim: DeliveryClaim, runtime: Runtime) -> None:
        self._claim, self._runtime, self._trail = claim, runtime, runtime.trail
        settings = next((item for item in runtime.settings.destinations if item.name == claim.destination), None)
        self._address, self._receiver = "", claim.destination
        if settings is not None and settings.kind == "cstore":
            self._address, self._receiver = settings.host, settings.ae_title
        elif settings is not None:
            self._address = urlsplit(settings.url).hostname or ""
        self._attempts = settings.retry_attempts if settings is not None else 1
        classes = Counter(row.sop_class_uid for row in claim.files)
        uids = sorted({row.study_instance_uid for row in claim.files})
        self._study = study(uids[0] if uids else "unknown", classes)

    def begun(self) -> None:
        """Write that the results begin to leave."""
        if self._claim.attempt == 1 and not self._claim.sent:
            self._trail.put(self._trail.events.sending(self._receiver, self._address, self._study), self._patient)

    def deferred(self, why: str) -> None:
        """Write that they did not arrive, and that it will be tried again while there are attempts left."""
        if self._claim.attempt >= self._attempts:
            self._ended(Outcome.SERIOUS_FAILURE, why)
        elif self._claim.attempt == 1:
            self._ended(Outcome.MINOR_FAILURE, why)

    def refused(self, why: str) -> None:
        """Write that they did not arrive, and that a person has to act."""
        self._ended(Outcome.SERIOUS_FAILURE, why)

    def delivered(self) -> None:
        """Write that they arrived."""
        self._ended(Outcome.SUCCESS, "")

    def _ended(self, outcome: Outcome, why: str) -> None:
        if self._claim.sent:
            return
        message = self._trail.events.sent(self._receiver, self._address, self._study, outcome, why)
        self._trail.put(message, self._patient)

    def _patient(self) -> Thing | None:
        return patient_in(self._runtime.spool.path(row.path) for row in self._claim.files)
