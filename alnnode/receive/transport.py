"""pynetdicom's acceptor side, made to wait for events instead of polling, and to survive objects that it would abort over.

pynetdicom 3.0.4 reads 4096 bytes at a time, leaves Nagle's algorithm on, polls every millisecond in both of its threads, and
ends the association when a command holds a UID that is not valid; it counts associations that are over. Each class below changes one of these and nothing else; what they
override is private in part, so `tests/unit/receive/test_transport.py` fails when a new pynetdicom moves it.
"""

from __future__ import annotations

import queue
import select
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom import AE, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE, StateMachine
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT, A_RELEASE
from pynetdicom.transport import AddressInformation, AssociationSocket, RequestHandler, ThreadedAssociationServer

from alnnode.errors import TlsRefused
from alnnode.receive.connection_limits import nobody
from alnnode.receive.dimse_messages import WAIT, Messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetdicom.presentation import PresentationContext

    from alnnode.receive.connection_limits import Gate
    from alnnode.receive.dimse_status import Status
    from alnnode.receive.spill import Keeping
    from alnnode.tls import Reloading

log = structlog.get_logger()

BACKLOG = 128
_HOLDING = frozenset({"Sta3", "Sta6"})  # asked for and not answered yet; established (PS3.8 9.2)
_OVER = frozenset({"Sta1", "Sta13"})  # idle; waiting for the peer to close (PS3.8 9.2)
SILENCE = 60.0  # seconds, where the settings of pynetdicom's AE name none
PDU_HEAD = 6  # bytes: type, reserved, length (PS3.8 9.3)
# A PDU longer than what was negotiated, and any other longer than this, is no DICOM: it is not read into memory.
PDU_MARGIN = 1 << 20


class _Socket(AssociationSocket):
    """Reads whole PDUs, and sleeps until there is something to read or to send."""

    def __init__(self, assoc: Association, client_socket: socket.socket, limit: int) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._limit = limit
        self._until: float | None = None  # when the PDU that is being read must be whole
        self._pdus = 0
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    def wake(self) -> None:
        """End the present or the next wait of `ready` at once."""
        try:
            self._wake_write.send(b"\0")
        except OSError:  # full: it wakes anyway; closed: nobody waits
            return

    @property
    def ready(self) -> bool:
        """Wait for data; False when woken for another reason, after `WAIT` seconds, or at once while events wait their turn."""
        if self.socket is None or not self._is_connected:
            time.sleep(0.01)  # the association is ending; its thread says when
            return False
        try:
            if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
                return True  # decrypted already: the descriptor does not show it
            poll = select.poll()  # select() fails from descriptor 1024 on
            poll.register(self.socket, select.POLLIN)
            poll.register(self._wake_read, select.POLLIN)
            # One event is served between two calls, and a connection begins with two: itself and its request.
            wait = WAIT if self.event_queue.empty() else 0
            found = {descriptor for descriptor, _ in poll.poll(wait * 1000)}
            if self._wake_read.fileno() in found:
                self._wake_read.recv(4096)
            return self.socket.fileno() in found
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes`` into one buffer; fewer when the peer closes.

        pynetdicom asks for the head of a PDU and then for its body. Together they have one time limit, however small the pieces are
        that they come in.
        """
        if nr_bytes > self._limit:
            raise OSError("a PDU is longer than any that was negotiated")
        if self.socket is None:
            raise OSError("the connection is closed")
        if nr_bytes == PDU_HEAD and self._until is None:
            allowed = self.assoc.acse_timeout if self._pdus == 0 else self.assoc.network_timeout
            self._until = time.monotonic() + (allowed or SILENCE)
        buffer = bytearray(nr_bytes)
        view, filled = memoryview(buffer), 0
        while filled < nr_bytes:
            if self._until is not None:
                self.socket.settimeout(max(0.001, self._until - time.monotonic()))
            count = self.socket.recv_into(view[filled:])
            if not count:
                break
            filled += count
        if nr_bytes != PDU_HEAD or buffer[2:] == bytes(4):
            self._until, self._pdus = None, self._pdus + 1
            self.socket.settimeout(self.assoc.network_timeout)
        view.release()
        del buffer[filled:]
        return buffer

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._wake_read.close()
        self._wake_write.close()


class _WakingQueue(queue.Queue[Any]):
    """A queue whose writer wakes the reader's `select`."""

    def __init__(self, provider: _Provider) -> None:
        super().__init__()
        self._provider = provider

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        if threading.current_thread() is not self._provider:
            self._provider.wake()


class _Events(queue.Queue[Any]):
    """What the association thread is told: a release or an abort also ends its wait for messages."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        if isinstance(item, (A_RELEASE, A_ABORT, A_P_ABORT)):
            self._association.dimse.msg_queue.put((None, None))


class _Machine(StateMachine):
    """Ends quietly: without leaving its thread to an exception, and telling the association of an end before any request."""

    def do_action(self, event: str) -> None:
        """Take one event. What fails ends this association; nobody else notices."""
        if self.current_state in _OVER and (event, self.current_state) not in TRANSITION_TABLE:
            # An answer of ours that comes after the end; only the action would have taken it off the queue.
            with suppress(queue.Empty):
                self.dul.to_provider_queue.get_nowait()
            return
        try:
            super().do_action(event)
        except Exception as error:  # noqa: BLE001 - a thread that dies of one would leave the connection open
            log.warning("association_failed", error=type(error).__name__)
            self.dul.kill_dul()
            if self.dul.socket is not None:
                self.dul.socket.close()

    def transition(self, state: str) -> None:
        """Enter a state."""
        super().transition(state)
        association = self.dul.assoc
        if state == "Sta1" and association.requestor.primitive is None:
            waiting: Any = self.dul.to_user_queue  # its type is inferred differently with and without a cache of mypy
            waiting.put(None)  # what pynetdicom itself takes for a timeout


class _Provider(DULServiceProvider):
    """The upper layer's thread: sleeps in `_Socket.ready` instead of for a millisecond."""

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self.state_machine = _Machine(self)
        self._run_loop_delay = 0
        self.to_provider_queue = _WakingQueue(self)
        self.to_user_queue = _Events(assoc)

    def wake(self) -> None:
        """Let the thread look at its queues."""
        if isinstance(self.socket, _Socket):
            self.socket.wake()

    def kill_dul(self) -> None:
        """End the thread."""
        super().kill_dul()
        self.wake()
        self.assoc.dimse.msg_queue.put((None, None))


class _Association(Association):
    """An acceptor made of the parts above; ``ended`` is called when its thread ends.

    Attributes:
        following: what is done, in the association's thread, when the request under way has been answered.
    """

    def __init__(self, ae: AE, keeping: Keeping, ended: Callable[[], None] = lambda: None) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.dul = _Provider(self)
        self.dimse = Messages(self, keeping)
        self.following: list[Callable[[], None]] = []
        self._ended = ended

    def _serve_request(self, msg: Any, context_id: int) -> None:
        super()._serve_request(msg, context_id)
        self._is_paused = True  # as while it serves: messages may be sent from here
        while self.following:
            self.following.pop()()
        self._is_paused = False

    def _handle_no_response(self) -> None:
        """Abort as pynetdicom does, unless the peer asked to release meanwhile: its loop then answers that."""
        if not _releasing(self):
            super()._handle_no_response()

    def run(self) -> None:
        """Be an association until its end."""
        try:
            super().run()
        finally:
            if isinstance(self.dimse, Messages):
                self.dimse.close()
            self._ended()


def after_answer(association: Association, work: Callable[[], None]) -> None:
    """Let the association's own thread do ``work`` when it has answered the request under way."""
    assert isinstance(association, _Association)
    association.following.append(work)


def is_open(association: Association) -> bool:
    """Whether something can be asked on an association: its peer has neither ended it nor asked to."""
    return bool(association.is_established and not _releasing(association))


def _releasing(association: Association) -> bool:
    """Whether the peer asked to release; pynetdicom's own question would take the request off its queue."""
    return isinstance(association.dul.peek_next_pdu(), A_RELEASE)


def fault_of(association: Association, message_id: int) -> tuple[Status, str] | None:
    """Return what is wrong with the command of a C-STORE request; each fault is given once."""
    messages = association.dimse
    return messages.faults.pop(message_id, None) if isinstance(messages, Messages) else None


class _Handler(RequestHandler):
    """Makes the association of a connection; the body is pynetdicom's, with other classes."""

    server: Server

    def handle(self) -> None:
        """Start the association as soon as the peer says something; before, a connection costs one thread and nothing else."""
        started = False
        try:
            if self._speaks():
                super().handle()
                started = True
        finally:
            if not started:
                self.server.gate.leave(self.client_address[0])

    def _speaks(self) -> bool:
        """Wait for the peer's first byte, or make the TLS handshake where there is one; False when neither comes in time."""
        seconds = self.ae.acse_timeout or SILENCE
        if self.server.tls is None:
            self.request.settimeout(seconds)
            try:
                spoke = bool(self.request.recv(1, socket.MSG_PEEK))
            except OSError:
                return False
        else:
            try:
                self.request = self.server.tls.accept(self.request, seconds)
            except TlsRefused as error:
                log.warning("tls_refused", address=self.client_address[0], reason=str(error))
                self.server.told(self.client_address[0], f"TLS: {error}")
                return False
            spoke = True
        self.request.settimeout(self.ae.network_timeout)
        return spoke

    def _create_association(self) -> Association:
        address = self.client_address[0]
        association = _Association(self.ae, self.server.keeping, lambda: self.server.gate.leave(address))
        association._server = self.server  # noqa: SLF001 - as RequestHandler does
        association.name = f"AcceptorThread-{self.client_address[1]}"  # pynetdicom finds its acceptors by this word
        limit = self.ae.maximum_pdu_size + PDU_MARGIN
        association.set_socket(_Socket(association, self.request, limit))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        acceptor.supported_contexts = deepcopy(self.server.contexts)
        association.requestor.address_info = AddressInformation.from_tuple(self.client_address)
        for event, handlers in self.server.bound:
            association.bind(event, handlers)
        association.bind(evt.EVT_DIMSE_RECV, lambda event: event.assoc.dimse.examine(event.message))
        return association


class Entity(AE):
    """Counts an association against `maximum_associations` from its peer's request until the peer ends it.

    pynetdicom counts threads: also of connections that have asked for nothing yet, and of associations that are over and wait
    for the peer to hang up. At exactly the maximum, a peer that released and called again at once was refused.
    """

    @property
    def active_associations(self) -> list[Association]:
        """The associations that hold a place, and that which asks, whose thread can be ahead of its state.

        The state leaves `_HOLDING` before a release is answered, so no peer is faster.
        """
        asking = threading.current_thread()
        return [one for one in super().active_associations if one is asking or one.dul.state_machine.current_state in _HOLDING]


class Server(ThreadedAssociationServer):
    """Listens on a port that other processes of the node listen on too; the kernel spreads the connections."""

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        contexts: Sequence[PresentationContext],
        bound: Sequence[tuple[Any, Any]],
        gate: Gate,
        keeping: Keeping,
        tls: Reloading | None = None,
        told: Callable[[str, str], None] = nobody,
    ) -> None:
        self.tls, self.told = tls, told
        self.bound, self.keeping = tuple(bound), keeping
        self.gate = gate
        super().__init__(ae, address, ae.ae_title, list(contexts), request_handler=_Handler)
        ae._servers.append(self)  # noqa: SLF001 - AE.shutdown and Server.shutdown expect it there

    def server_bind(self) -> None:
        """Share the port."""
        assert self.socket is not None  # socketserver makes it before it binds it
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; answers are small and must not wait for the peer's acknowledgement."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ae.network_timeout is not None:
            connection.settimeout(self.ae.network_timeout)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - the signature is socketserver's
        """Whether the peer may connect."""
        return self.gate.enter(client_address[0])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the connection's thread."""
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self.gate.leave(client_address[0])
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the signature is socketserver's
        """Say that a connection failed, without the traceback that socketserver prints."""
        log.error("connection_failed", address=client_address[0], error=type(sys.exception()).__name__)
