"""pynetdicom's acceptor side, made to wait for events instead of polling, and to survive objects that it would abort over.

pynetdicom 3.0.4 reads 4096 bytes at a time, leaves Nagle's algorithm on, polls every millisecond in both of its threads, and
ends the association when a command holds a UID that is not valid. Each class below changes one of these and nothing else; what they
override is private in part, so `tests/unit/test_ingest_transport.py` fails when a new pynetdicom moves it.
"""

from __future__ import annotations

import queue
import select
import socket
import ssl
import struct
import sys
import threading
import time
from copy import deepcopy
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import structlog
from pydicom.uid import CTImageStorage
from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT, A_RELEASE, P_DATA
from pynetdicom.transport import AddressInformation, AssociationSocket, RequestHandler, ThreadedAssociationServer

from alnnode.errors import TlsRefused
from alnnode.ingest.header import valid_uid
from alnnode.ingest.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    from pynetdicom import AE
    from pynetdicom.dimse_messages import DIMSEMessage
    from pynetdicom.presentation import PresentationContext

    from alnnode.tls import Reloading

log = structlog.get_logger()

WAIT = 0.25  # seconds that a thread sleeps at most when nothing wakes it: timers are looked at this often
BACKLOG = 128
HANDSHAKE = 30.0  # seconds
# A PDU longer than what was negotiated, and any other longer than this, is no DICOM: it is not read into memory.
PDU_MARGIN = 1 << 20
_ELEMENT, _SHORT, _LONG = struct.Struct("<HHI"), struct.Struct("<HHIH"), struct.Struct("<HHII")
PLACEHOLDER_UID = "2.25.0"  # stands in a command for a UID that is not valid


class _Socket(AssociationSocket):
    """Reads whole PDUs, and sleeps until there is something to read or to send."""

    def __init__(self, assoc: Association, client_socket: socket.socket, limit: int) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._limit = limit
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
        """Read ``nr_bytes`` into one buffer; fewer when the peer closes."""
        if nr_bytes > self._limit:
            raise OSError("a PDU is longer than any that was negotiated")
        if self.socket is None:
            raise OSError("the connection is closed")
        buffer = bytearray(nr_bytes)
        view, filled = memoryview(buffer), 0
        while filled < nr_bytes:
            count = self.socket.recv_into(view[filled:])
            if not count:
                break
            filled += count
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
    """Tells the association when the connection ends before any request: a load balancer's probe must not hold two threads."""

    def transition(self, state: str) -> None:
        """Enter a state."""
        super().transition(state)
        association = self.dul.assoc
        if state == "Sta1" and association.requestor.primitive is None:
            self.dul.to_user_queue.put(None)  # type: ignore[arg-type]  # what pynetdicom itself takes for a timeout


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


class _Inbox(queue.Queue[Any]):
    """Serves a C-STORE where it arrives, in the upper layer's thread.

    Its sender waits for the answer and nothing else is to be read meanwhile; two hand-overs between threads for each image would cost
    more than the image does.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        context_id, primitive = item
        association = self._association
        direct = isinstance(primitive, C_STORE) and primitive.is_valid_request and association.is_established
        if direct and context_id in association._accepted_cx:  # noqa: SLF001 - its public twin is a list without ids
            association._serve_request(primitive, context_id)  # noqa: SLF001 - what the association's own loop calls
        else:
            super().put(item, block, timeout)


class _Messages(DIMSEServiceProvider):
    """The message layer: waits for messages, keeps no more of one than allowed, and notes what is wrong with a command."""

    def __init__(self, assoc: Association, max_bytes: int) -> None:
        super().__init__(assoc)
        self.msg_queue = _Inbox(assoc)
        self._max_bytes = max_bytes
        self.faults: dict[int, tuple[Status, str]] = {}  # by Message ID

    def get_msg(self, block: bool = False) -> Any:
        """Wait for a message also when asked not to: the caller's loop would only ask again."""
        try:
            return self.msg_queue.get(timeout=self.dimse_timeout if block else WAIT)
        except queue.Empty:
            return None, None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take a part of a message; of an object that is larger than allowed, drop the rest instead of holding it in memory."""
        if self.message is not None and self.message.data_set is not None and self.message.data_set.tell() > self._max_bytes:
            values = primitive.presentation_data_value_list
            values[:] = [(context, data if data[0] & 1 else data[:1]) for context, data in values]
        super().receive_primitive(primitive)

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message; the answer to a C-STORE by way of a template instead of two data sets."""
        if isinstance(primitive, C_STORE) and primitive.MessageIDBeingRespondedTo is not None and not primitive.ErrorComment:
            part = P_DATA()
            part.presentation_data_value_list.append((context_id, b"\x03" + _store_answer(primitive)))  # last command fragment
            self.dul.send_pdu(part)
        else:
            super().send_msg(primitive, context_id)

    def examine(self, message: DIMSEMessage) -> None:
        """Make a C-STORE command that pynetdicom would abort over acceptable, and note the fault for the answer."""
        if not isinstance(message, C_STORE_RQ):
            return
        command = message.command_set
        context = self.assoc._accepted_cx.get(message.context_id or 0)  # noqa: SLF001 - its public twin is a list without ids
        if context is None:
            return  # a protocol violation, and pynetdicom's to answer
        fault: tuple[Status, str] | None = None
        if str(command.get("AffectedSOPClassUID", "")) != context.abstract_syntax:
            fault = Status.SOP_CLASS_MISMATCH, "the command is of another SOP class than negotiated"
            command.AffectedSOPClassUID = CTImageStorage  # any that pynetdicom hands to the storage service
        if not valid_uid(str(command.get("AffectedSOPInstanceUID", ""))):
            fault = Status.INVALID_UID, "SOP Instance UID of the command is not valid"
            command.AffectedSOPInstanceUID = PLACEHOLDER_UID
        if fault is not None:
            self.faults[int(command.get("MessageID") or 0)] = fault


def _store_answer(answer: C_STORE) -> bytes:
    """Encode a C-STORE response: implicit VR little endian, PS3.7 table 9.3-2."""
    class_uid = str(answer.AffectedSOPClassUID).encode("ascii")
    instance_uid = str(answer.AffectedSOPInstanceUID).encode("ascii")
    class_uid += b"\0" * (len(class_uid) % 2)
    instance_uid += b"\0" * (len(instance_uid) % 2)
    shorts = ((0x0100, 0x8001), (0x0120, answer.MessageIDBeingRespondedTo), (0x0800, 0x0101), (0x0900, answer.Status))
    elements = _ELEMENT.pack(0, 0x0002, len(class_uid)) + class_uid
    elements += b"".join(_SHORT.pack(0, element, 2, value) for element, value in shorts)
    elements += _ELEMENT.pack(0, 0x1000, len(instance_uid)) + instance_uid
    return _LONG.pack(0, 0, 4, len(elements)) + elements


class _Association(Association):
    """An acceptor made of the parts above."""

    def __init__(self, ae: AE, max_bytes: int) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.dul = _Provider(self)
        self.dimse = _Messages(self, max_bytes)


def fault_of(association: Association, message_id: int) -> tuple[Status, str] | None:
    """Return what is wrong with the command of a C-STORE request; each fault is given once."""
    messages = association.dimse
    return messages.faults.pop(message_id, None) if isinstance(messages, _Messages) else None


class _Handler(RequestHandler):
    """Makes the association of a connection; the body is pynetdicom's, with other classes."""

    server: Server

    def handle(self) -> None:
        """Make the TLS handshake where there is one, in this connection's own thread, then start the association."""
        if self.server.tls is not None:
            try:
                self.request = self.server.tls.accept(self.request, self.ae.acse_timeout or HANDSHAKE)
            except TlsRefused as error:
                log.warning("tls_refused", address=self.client_address[0], reason=str(error))
                return
            self.request.settimeout(self.ae.network_timeout)
        super().handle()

    def _create_association(self) -> Association:
        association = _Association(self.ae, self.server.max_object_bytes)
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
        networks: Sequence[IPv4Network | IPv6Network],
        max_object_bytes: int,
        tls: Reloading | None = None,
    ) -> None:
        self.tls = tls
        self.bound, self.max_object_bytes = tuple(bound), max_object_bytes
        self._networks = tuple(networks)
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
        """Whether the peer's address is allowed."""
        address = ip_address(client_address[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the signature is socketserver's
        """Say that a connection failed, without the traceback that socketserver prints."""
        log.error("connection_failed", address=client_address[0], error=type(sys.exception()).__name__)
