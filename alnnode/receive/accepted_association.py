"""An association that a peer requested of this node, and what the services of the listener ask of it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_RELEASE

from alnnode.receive.dimse_messages import MessageProvider
from alnnode.receive.upper_layer import UpperLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom import AE

    from alnnode.receive.dimse_status import Status
    from alnnode.receive.spill import SpillFolder

log = structlog.get_logger()

ABORT = bytes((0x07, 0, 0, 0, 0, 4, 0, 0, 0, 0))  # an A-ABORT PDU of the service user (PS3.8 9.3.8)


class AcceptedAssociation(Association):
    """An association in the role of the acceptor; ``ended`` is called when its thread ends.

    Attributes:
        following: calls that the association's thread makes when it has sent the response to the request under way.
    """

    def __init__(self, ae: AE, spill: SpillFolder, ended: Callable[[], None] = lambda: None) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.dul = UpperLayer(self)
        self.dimse = MessageProvider(self, spill)
        self.following: list[Callable[[], None]] = []
        self._ended = ended

    def _serve_request(self, msg: Any, context_id: int) -> None:
        super()._serve_request(msg, context_id)
        self._is_paused = True  # as while it serves a request: the calls may send messages
        while self.following:
            self.following.pop()()
        self._is_paused = False

    def _handle_no_response(self) -> None:
        """Abort as pynetdicom does, except after a release request of the peer, to which pynetdicom's loop responds."""
        if not _is_releasing(self):
            super()._handle_no_response()

    def run(self) -> None:
        """Serve the association until its end. An error ends this association, and affects no other."""
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 - the connection would stay open, with a thread, and be counted no more
            log.warning("association_failed", error=type(error).__name__)
            self._cut()
        finally:
            if isinstance(self.dimse, MessageProvider):
                self.dimse.close()
            self._ended()

    def _cut(self) -> None:
        """Tell the peer of the end, and close the connection."""
        connection = self.dul.socket
        self.dul.kill_dul()
        if connection is not None and connection.socket is not None:
            with suppress(OSError):
                connection.socket.sendall(ABORT)
            connection.close()


def after_response(association: Association, call: Callable[[], None]) -> None:
    """Make the association's thread call ``call`` after the response to the request under way."""
    assert isinstance(association, AcceptedAssociation)
    association.following.append(call)


def is_open(association: Association) -> bool:
    """Return whether this node may send a request: the peer has neither ended the association nor requested its release."""
    return bool(association.is_established and not _is_releasing(association))


def _is_releasing(association: Association) -> bool:
    """Return whether the peer requested a release; pynetdicom's own check would remove the request from its queue."""
    return isinstance(association.dul.peek_next_pdu(), A_RELEASE)


def command_fault(association: Association, message_id: int) -> tuple[Status, str] | None:
    """Return what is wrong with the command of a C-STORE request, once; None when nothing is."""
    messages = association.dimse
    return messages.faults.pop(message_id, None) if isinstance(messages, MessageProvider) else None
