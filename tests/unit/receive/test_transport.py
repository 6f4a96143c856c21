"""The overrides of pynetdicom: pynetdicom still has what they replace, and they wait and read as intended."""

import inspect
import select
import socket

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from alnnode.receive import association_server, dimse_messages, pdu_socket
from alnnode.receive.accepted_association import AcceptedAssociation
from alnnode.receive.association_server import ListenerEntity, ServerOptions
from alnnode.receive.connection_limits import ConnectionLimiter, ConnectionLimits
from alnnode.receive.pdu_socket import PduSocket
from alnnode.receive.presentation_contexts import supported_contexts
from alnnode.receive.spill import SpillFolder


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (AssociationSocket, "recv", ["self", "nr_bytes"]),
        (AssociationSocket, "close", ["self"]),
        (RequestHandler, "_create_association", ["self"]),
        (StateMachine, "transition", ["self", "state"]),
        (StateMachine, "do_action", ["self", "event"]),
        (DULServiceProvider, "_decode_pdu", ["self", "bytestream"]),
        (DULServiceProvider, "kill_dul", ["self"]),
        (DULServiceProvider, "send_pdu", ["self", "primitive"]),
        (DIMSEServiceProvider, "get_msg", ["self", "block"]),
        (DIMSEServiceProvider, "receive_primitive", ["self", "primitive"]),
        (DIMSEServiceProvider, "send_msg", ["self", "primitive", "context_id"]),
        (Association, "_serve_request", ["self", "msg", "context_id"]),
        (Association, "_handle_no_response", ["self"]),
        (AssociationServer, "server_bind", ["self"]),
        (AssociationServer, "service_actions", ["self"]),
    ],
)
def test_pynetdicom_still_has_what_is_overridden(owner, name, parameters) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


@pytest.fixture
def pair(tmp_path):
    association = AcceptedAssociation(AE("NODE"), SpillFolder(tmp_path, 1 << 20, lambda _: None))
    here, there = socket.socketpair()
    end = PduSocket(association, here, limit=1 << 20)
    yield end, there
    there.close()
    end.close()


@pytest.fixture
def waits(monkeypatch):
    """Each wait of a socket: its limit in ms, and how many descriptors ended it; 0 is a wait that lasted to its limit."""
    made: list[tuple[float, int]] = []

    class Poll:
        def __init__(self) -> None:
            self._poll = original()
            self.register = self._poll.register

        def poll(self, limit):
            found = self._poll.poll(limit)
            made.append((limit, len(found)))
            return found

    original = select.poll
    monkeypatch.setattr(pdu_socket.select, "poll", Poll)
    return made


def test_a_queued_event_is_not_delayed(pair, waits) -> None:
    # Accepting a connection queues its first event; the association request that follows must not wait for a timeout.
    end, _ = pair
    assert not end.event_queue.empty()
    assert not end.ready
    assert waits == [(0, 0)]


def test_an_idle_connection_sleeps_and_data_or_a_call_ends_its_sleep(pair, waits) -> None:
    end, there = pair
    while not end.event_queue.empty():
        end.event_queue.get()
    limit = dimse_messages.WAIT * 1000
    assert not end.ready
    there.send(b"\1")
    assert end.ready
    assert bytes(end.recv(1)) == b"\1"
    end.wake()
    assert not end.ready
    assert not end.ready, "one call ends one wait"
    assert waits == [(limit, 0), (limit, 1), (limit, 1), (limit, 0)]


def test_a_pdu_is_read_to_its_end_or_that_of_the_connection_and_never_beyond_the_limit(pair) -> None:
    end, there = pair
    there.sendall(b"ab")
    there.sendall(b"cd")
    there.shutdown(socket.SHUT_WR)
    assert bytes(end.recv(3)) == b"abc"
    assert bytes(end.recv(3)) == b"d"
    with pytest.raises(OSError, match="longer than the negotiated maximum"):
        end.recv((1 << 20) + 1)


def test_the_short_answer_is_what_pynetdicom_would_encode() -> None:
    from pynetdicom.dimse_messages import C_STORE_RSP

    answer = C_STORE()
    answer.MessageIDBeingRespondedTo = 7
    answer.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    answer.AffectedSOPInstanceUID = "1.2.3.45"
    answer.Status = 0x0000
    message = C_STORE_RSP()
    message.primitive_to_message(answer)
    encoded = b"".join(data[1:] for part in message.encode_msg(1, 16382) for _, data in part.presentation_data_value_list)
    assert dimse_messages._store_response(answer) == encoded


def test_a_flood_of_connections_does_not_collect_garbage_for_each_of_them(tmp_path, monkeypatch) -> None:
    limiter = ConnectionLimiter([], ConnectionLimits(1, 1, 1.0))
    entity = ListenerEntity("NODE")
    options = ServerOptions([], limiter, SpillFolder(tmp_path, 1 << 20, lambda _: None))
    server = association_server.AssociationServer(entity, ("127.0.0.1", 0), supported_contexts(), options)
    collected, now = [], server._collected_at
    monkeypatch.setattr(association_server.gc, "collect", lambda: collected.append(None))
    monkeypatch.setattr(association_server.time, "monotonic", lambda: now)
    try:
        for _ in range(1000):
            server.service_actions()
        assert collected == []
        now += association_server.COLLECTION_INTERVAL
        server.service_actions()
        server.service_actions()
        assert len(collected) == 1
    finally:
        server.server_close()
