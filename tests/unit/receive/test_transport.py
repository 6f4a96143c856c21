"""What the acceptor's transport overrides of pynetdicom is still there, and does what it is for."""

import inspect
import socket
import time

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from alnnode.receive import dimse_messages, transport
from alnnode.receive.spill import Keeping


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (AssociationSocket, "recv", ["self", "nr_bytes"]),
        (AssociationSocket, "close", ["self"]),
        (RequestHandler, "_create_association", ["self"]),
        (StateMachine, "transition", ["self", "state"]),
        (StateMachine, "do_action", ["self", "event"]),
        (DULServiceProvider, "kill_dul", ["self"]),
        (DULServiceProvider, "send_pdu", ["self", "primitive"]),
        (DIMSEServiceProvider, "get_msg", ["self", "block"]),
        (DIMSEServiceProvider, "receive_primitive", ["self", "primitive"]),
        (DIMSEServiceProvider, "send_msg", ["self", "primitive", "context_id"]),
        (Association, "_serve_request", ["self", "msg", "context_id"]),
        (Association, "_handle_no_response", ["self"]),
        (AssociationServer, "server_bind", ["self"]),
    ],
)
def test_pynetdicom_still_has_what_is_overridden(owner, name, parameters) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


@pytest.fixture
def pair(tmp_path):
    association = transport._Association(AE("NODE"), Keeping(tmp_path, 1 << 20, lambda _: None))
    here, there = socket.socketpair()
    end = transport._Socket(association, here, limit=1 << 20)
    yield end, there
    there.close()
    end.close()


def seconds(end: transport._Socket) -> tuple[bool, float]:
    start = time.monotonic()
    return end.ready, time.monotonic() - start


def test_events_that_wait_are_not_kept_waiting(pair) -> None:
    # Accepting a connection queues its first event; the association request that follows must not sit behind a sleep.
    end, _ = pair
    assert not end.event_queue.empty()
    ready, elapsed = seconds(end)
    assert not ready
    assert elapsed < transport.WAIT / 2


def test_an_idle_connection_sleeps_and_data_or_a_call_ends_its_sleep(pair) -> None:
    end, there = pair
    while not end.event_queue.empty():
        end.event_queue.get()
    ready, elapsed = seconds(end)
    assert not ready
    assert elapsed > transport.WAIT / 2
    there.send(b"\1")
    assert end.ready
    assert bytes(end.recv(1)) == b"\1"
    end.wake()
    ready, elapsed = seconds(end)
    assert not ready
    assert elapsed < transport.WAIT / 2


def test_a_pdu_is_read_whole_or_up_to_the_end_and_never_beyond_the_limit(pair) -> None:
    end, there = pair
    there.sendall(b"ab")
    there.sendall(b"cd")
    there.shutdown(socket.SHUT_WR)
    assert bytes(end.recv(3)) == b"abc"
    assert bytes(end.recv(3)) == b"d"
    with pytest.raises(OSError, match="longer than any"):
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
    assert dimse_messages._store_answer(answer) == encoded
