"""The DICOM upper layer of an accepted association (PS3.8): its thread sleeps instead of polling, and every error ends the association.

The classes override private parts of pynetdicom 3.0.4; `tests/unit/receive/test_transport.py` fails when a new version changes them.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE, StateMachine
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT, A_RELEASE

from alnnode.receive.data_pdu import P_DATA_TF, DataPdu
from alnnode.receive.pdu_socket import PduSocket

if TYPE_CHECKING:
    from pynetdicom.association import Association

log = structlog.get_logger()

_OVER = frozenset({"Sta1", "Sta13"})  # idle; waiting for the peer to close the connection (PS3.8 9.2)


class _WakingQueue(queue.Queue[Any]):
    """A queue whose writer wakes the upper layer's thread."""

    def __init__(self, provider: UpperLayer) -> None:
        super().__init__()
        self._provider = provider

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        if threading.current_thread() is not self._provider:
            self._provider.wake()


class _AssociationEvents(queue.Queue[Any]):
    """Events for the association's thread: a release or an abort also ends its wait for messages."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        if isinstance(item, (A_RELEASE, A_ABORT, A_P_ABORT)):
            self._association.dimse.msg_queue.put((None, None))


class _QuietStateMachine(StateMachine):
    """Ends without an exception in its thread, and tells the association of an end that comes before any request."""

    def do_action(self, event: str) -> None:
        """Handle one event. An error ends this association, and affects no other."""
        if self.current_state in _OVER and (event, self.current_state) not in TRANSITION_TABLE:
            # A response of this node after the end of the association: only its action would remove it from the queue.
            with suppress(queue.Empty):
                self.dul.to_provider_queue.get_nowait()
            return
        try:
            super().do_action(event)
        except Exception as error:  # noqa: BLE001 - an exception would end the thread and leave the connection open
            log.warning("association_failed", error=type(error).__name__)
            self.dul.kill_dul()
            if self.dul.socket is not None:
                self.dul.socket.close()

    def transition(self, state: str) -> None:
        """Enter a state."""
        super().transition(state)
        association = self.dul.assoc
        if state == "Sta1" and association.requestor.primitive is None:
            waiting: Any = self.dul.to_user_queue  # mypy infers its type differently with and without a cache
            waiting.put(None)  # pynetdicom treats None as a timeout


class UpperLayer(DULServiceProvider):
    """The thread of the upper layer: sleeps in `PduSocket.ready` instead of for a millisecond."""

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self.state_machine = _QuietStateMachine(self)
        self._run_loop_delay = 0
        self.to_provider_queue = _WakingQueue(self)
        self.to_user_queue = _AssociationEvents(assoc)

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        """Decode a PDU; return it with its event. Nothing handles the events of pynetdicom for P-DATA-TF PDUs."""
        if bytestream[0] == P_DATA_TF:
            return DataPdu(bytestream), "Evt10"
        return super()._decode_pdu(bytestream)

    def wake(self) -> None:
        """Let the thread look at its queues."""
        if isinstance(self.socket, PduSocket):
            self.socket.wake()

    def kill_dul(self) -> None:
        """End the thread."""
        super().kill_dul()
        self.wake()
        self.assoc.dimse.msg_queue.put((None, None))
