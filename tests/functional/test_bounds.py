"""Limits of the listener: silent and slow peers, too many connections of one address, oversized messages, and port probes."""

import hashlib
import os
import signal
import socket
import struct
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import dicom_objects
import pytest
from hostile_pdus import item, pdu
from listening import Listener, wait_for
from pynetdicom import AE
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import Verification

from alnnode.db import schema

SLOW = 0.1  # seconds between two bytes


@pytest.fixture
def make(tmp_path):
    made = []

    def start(extra="", internal="") -> Listener:
        url = f"sqlite:///{tmp_path / 'alnnode.db'}"
        schema.migrate(url)
        made.append(Listener(tmp_path, url, extra, internal=internal))
        made[-1].start()
        return made[-1]

    yield start
    for listener in made:
        listener.stop()


def threads(listener) -> int:
    return len(list(Path(f"/proc/{listener.processes[0].pid}/task").iterdir()))


def connect(listener, source="127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", listener.port), source_address=(source, 0))
    connection.settimeout(SLOW)
    return connection


def trickle(connection, data) -> float:
    """Send one byte after the other until the listener drops the connection; how many seconds that took."""
    start = time.monotonic()
    for byte in data:
        try:
            connection.send(bytes([byte]))
            if connection.recv(4096) == b"":
                return time.monotonic() - start
        except TimeoutError:
            pass
        except OSError:
            return time.monotonic() - start
    raise AssertionError("the connection is still open after all bytes")


def request() -> bytes:
    """An association request with Verification, as DCMTK sends it."""

    def item(kind, body):
        return struct.pack(">BBH", kind, 0, len(body)) + body

    context = item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2")
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.276.0.7230010.3.0.3.6.7")
    items = item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, bytes([1, 0, 0, 0]) + context) + item(0x50, user)
    body = struct.pack(">HH", 1, 0) + b"ALNNODE".ljust(16) + b"SLOW".ljust(16) + bytes(32) + items
    return struct.pack(">BBI", 1, 0, len(body)) + body


def associated(listener, source="127.0.0.1") -> socket.socket:
    connection = connect(listener, source)
    connection.settimeout(5)
    connection.sendall(request())
    kind, _, length = struct.unpack(">BBI", connection.recv(6, socket.MSG_WAITALL))
    assert kind == 2, "A-ASSOCIATE-AC"
    connection.recv(length, socket.MSG_WAITALL)
    connection.settimeout(SLOW)
    return connection


def test_a_silent_connection_costs_one_thread_for_a_limited_time(make) -> None:
    listener = make("max_associations = 4", "association_timeout = 2")
    before = threads(listener)
    with ExitStack() as stack:
        silent = [stack.enter_context(closing(connect(listener, f"127.0.0.{2 + number // 2}"))) for number in range(40)]
        wait_for(lambda: threads(listener) >= before + 40)
        assert threads(listener) <= before + 40
        # Silent connections are no associations: peers can still associate.
        associations = [listener.associate([(Verification, ["1.2.840.10008.1.2"])]) for _ in range(2)]
        assert all(association.is_established for association in associations)
        for association in associations:
            association.release()
        for connection in silent:
            connection.settimeout(5)
            assert connection.recv(1) == b""
    wait_for(lambda: threads(listener) <= before)


def test_probes_leave_nothing_behind_and_are_not_mentioned(make) -> None:
    listener = make(internal="connection_rate = 1000")
    before, size = threads(listener), len(listener.log.read_text())
    for _ in range(400):
        connect(listener).close()
    wait_for(lambda: threads(listener) <= before)
    assert len(listener.log.read_text()) == size


def test_a_slow_association_request_is_dropped_on_time(make) -> None:
    listener = make("timeout = 30", "association_timeout = 1.5")
    with closing(connect(listener)) as slow:
        assert trickle(slow, request()[:60]) > 1  # these bytes take 6 s


def test_a_pdu_that_trickles_in_is_dropped_on_time(make) -> None:
    listener = make("timeout = 1.5")
    with closing(associated(listener)) as slow:
        assert trickle(slow, b"\x04\0\0\0\x20\0" + bytes(54)) > 1  # these bytes take 6 s


def test_a_message_of_endless_small_pdus_is_aborted(make) -> None:
    listener = make("timeout = 1.5")
    piece = struct.pack(">BBIIBB", 4, 0, 7, 3, 1, 1) + b"\x08"  # one byte of a command, and more to come
    with closing(associated(listener)) as slow:
        answer = b""
        for _ in range(80):  # these pieces take 8 s
            slow.sendall(piece)
            with suppress(TimeoutError):
                answer = slow.recv(10)
                break
        assert answer[:1] == b"\x07", "A-ABORT"
    wait_for(lambda: listener.associate().is_established)


def test_a_request_that_breaks_the_negotiation_is_aborted_and_leaves_no_thread(make) -> None:
    listener = make()
    before = threads(listener)
    unknown = item(0x20, bytes([1, 0, 0, 0]) + item(0x30, b"1.2.3.4"))  # a presentation context without a transfer syntax
    head = struct.pack(">HH", 1, 0) + b"ALNNODE".ljust(16) + b"CT1".ljust(16) + bytes(32)
    user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4"))
    with ExitStack() as stack:
        for _ in range(5):
            peer = stack.enter_context(closing(connect(listener)))
            peer.settimeout(20)
            peer.sendall(pdu(1, head + item(0x10, b"1.2.840.10008.3.1.1.1") + unknown + user))
            assert peer.recv(10)[:1] == b"\x07", "A-ABORT"
            assert peer.recv(1) == b""
        wait_for(lambda: threads(listener) <= before)  # although the peer keeps its connections
    log = listener.log.read_text()
    assert "uncaught" not in log
    assert log.count("association_failed") == 5


def test_one_address_cannot_take_all_places(make) -> None:
    listener = make("max_associations = 6")
    with ExitStack() as stack:
        held = [stack.enter_context(closing(associated(listener))) for _ in range(3)]
        with closing(connect(listener)) as fourth:
            fourth.settimeout(5)
            assert fourth.recv(1) == b""
        held[0].close()
        association = wait_for(lambda: (a := listener.associate()).is_established and a, 10)
        association.release()
    assert listener.log.read_text().count("connection_refused") == 1


def test_one_address_cannot_take_all_places_at_the_default_settings(make) -> None:
    listener = make()
    with ExitStack() as stack:
        for _ in range(60):
            with suppress(OSError, struct.error):
                stack.enter_context(closing(associated(listener, "127.0.0.2")))
        for _ in range(3):
            association = listener.associate()
            assert association.is_established
            assert association.send_c_store(dicom_objects.ct(1)).Status == 0x0000
            association.release()


def test_beyond_the_maximum_the_answer_is_local_limit_exceeded(make) -> None:
    listener = make("max_associations = 2")
    with ExitStack() as stack:
        for number in range(2):
            stack.enter_context(closing(associated(listener, f"127.0.0.{2 + number}")))
        third = listener.associate()
        assert third.is_rejected
        answer = third.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)  # PS3.8 9.3.4
    wait_for(lambda: listener.associate().is_established, 10)


def test_who_has_released_but_not_hung_up_holds_no_place(make) -> None:
    listener = make("max_associations = 2")
    with closing(associated(listener, "127.0.0.2")), closing(associated(listener, "127.0.0.3")) as over:
        over.settimeout(5)
        over.sendall(struct.pack(">BBII", 5, 0, 4, 0))
        assert over.recv(10, socket.MSG_WAITALL)[:1] == b"\x06", "A-RELEASE-RP"
        association = listener.associate()
        assert association.is_established
        association.release()


def test_who_has_not_asked_yet_holds_no_place(make) -> None:
    listener = make("max_associations = 2")
    before = threads(listener)
    with closing(associated(listener, "127.0.0.2")), closing(connect(listener, "127.0.0.3")) as slow:
        slow.sendall(request()[:20])
        wait_for(lambda: threads(listener) >= before + 4)  # pynetdicom's two threads of each association
        association = listener.associate()
        assert association.is_established
        association.release()


def test_a_pdu_or_an_object_beyond_the_bounds_costs_no_memory(make) -> None:
    listener = make("max_object_mb = 1")
    association = listener.associate()
    assert association.send_c_store(dicom_objects.ct(1, side=1024)).Status == 0xA700
    assert association.send_c_store(dicom_objects.ct(2)).Status == 0x0000
    association.release()
    with closing(associated(listener)) as huge:
        huge.settimeout(5)
        huge.sendall(b"\x04\0\xff\xff\xff\xf0" + bytes(1000))
        while huge.recv(4096):
            pass


def test_it_stops_when_another_thread_gets_the_signal_and_a_peer_stays_connected(make) -> None:
    listener = make()
    (process,) = listener.processes
    with closing(associated(listener)):
        threads = {int(path.name) for path in Path(f"/proc/{process.pid}/task").iterdir()} - {process.pid}
        os.kill(max(threads), signal.SIGTERM)  # the kernel may deliver any signal to any thread
        assert process.wait(20) == 0


def test_who_has_no_passcode_gets_no_association(make) -> None:
    digest = hashlib.sha256(b"pass").hexdigest()
    listener = make(f'users = [{{ name = "CT1", sha256 = "{digest}" }}]')

    def associate(name, passcode, kind=2):
        entity = AE("CT1")
        entity.add_requested_context(Verification)
        identity = UserIdentityNegotiation()
        identity.user_identity_type, identity.primary_field = kind, name
        if kind == 2:
            identity.secondary_field = passcode
        return entity.associate("127.0.0.1", listener.port, ae_title="ALNNODE", ext_neg=[identity])

    refused = [listener.associate(), associate(b"CT1", b"word"), associate(b"CT2", b"pass"), associate(b"CT1", b"pass", kind=1)]
    for association in refused:
        answer = association.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 2, 1)
    right = associate(b"CT1", b"pass")
    assert right.is_established
    right.release()
    assert listener.log.read_text().count("user_refused") == len(refused)
