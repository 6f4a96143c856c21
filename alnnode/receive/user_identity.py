"""User identity negotiation (PS3.7 D.3.3.7): reject associations without a user name and passcode of the settings."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom.pdu_primitives import UserIdentityNegotiation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetdicom.events import Event

    from alnnode.settings import ListenerUser

log = structlog.get_logger()

USERNAME, USERNAME_AND_PASSCODE = 1, 2  # User-Identity-Type, table D.3-14


class UserIdentities:
    """The users of the settings; without users, no association needs an identity."""

    def __init__(self, users: Sequence[ListenerUser]) -> None:
        self._digests = {user.name.encode(): user.sha256 for user in users}

    def require(self, event: Event) -> None:
        """Give an association request without an identity an unknown one, so that pynetdicom checks and rejects it."""
        requestor = event.assoc.requestor
        if self._digests and requestor.primitive is not None and requestor.user_identity is None:
            unknown = UserIdentityNegotiation()
            unknown.user_identity_type, unknown.primary_field = USERNAME, b"-"
            requestor.primitive.user_information.append(unknown)

    def check(self, event: Any) -> tuple[bool, None]:  # each kind of pynetdicom's event has its own attributes
        """Return whether the negotiated identity is that of a user."""
        if not self._digests:
            return True, None
        known = self._digests.get(event.primary_field, "")
        given = hashlib.sha256(event.secondary_field or b"").hexdigest()
        if event.user_id_type == USERNAME_AND_PASSCODE and hmac.compare_digest(known, given):
            return True, None
        log.warning("user_refused", calling_ae_title=event.assoc.requestor.ae_title)
        return False, None
