"""Associations that the listener does not serve are logged, counted and listed, and a flood of them fills nothing."""

import re
import socket
import struct
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from listening import Listener, wait_for
from pynetdicom.sop_class import CTImageStorage, Verification
from sqlalchemy import func, select

from alnnode.db import engine as engines
from alnnode.db import schema
from alnnode.db.operation_tables import RejectionRow
from alnnode.receive import rejected_associations
from alnnode.receive.rejected_associations import RejectedAssociations
from alnnode.receive.rejections import Rejection, RejectionKind

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@contextmanager
def listening(folder, extra):
    url = f"sqlite:///{folder / 'alnnode.db'}"
    schema.migrate(url)
    listener = Listener(folder, url, extra)
    listener.start()
    try:
        yield listener, RejectedAssociations(engines.create(url))
    finally:
        listener.stop()


def test_each_kind_of_rejection_is_logged_counted_and_listed_with_its_remedy(tmp_path) -> None:
    with listening(tmp_path, 'calling_ae_titles = ["CT1"]\naddresses = ["127.0.0.1/32"]') as (listener, table):
        assert listener.associate(called="ALNODE").is_rejected
        assert listener.associate(called="ALNODE").is_rejected
        assert listener.associate(calling="STRANGER").is_rejected
        secret_capture = "1.2.840.10008.5.1.4.1.1.77.1.4"
        nothing_common = listener.associate(
            contexts=((CTImageStorage, ["1.2.840.10008.1.2.4.100"]), (secret_capture, ["1.2.3.4"]))
        )
        nothing_common.abort()
        only_echo = listener.associate(contexts=((Verification, ["1.2.840.10008.1.2"]), (CTImageStorage, ["1.2.3.4.5"])))
        assert only_echo.is_established
        only_echo.release()
        listener.associate(source="127.0.0.9")
        listener.associate().release()

        def found():
            return {(row.kind, row.called_ae, row.calling_ae): row for row in table.recent()}

        wait_for(lambda: sum(table.totals().values()) == 6)
        rows = wait_for(lambda: len(found()) == 4 and found())
        called = rows[RejectionKind.CALLED, "ALNODE", "CT1"]
        assert (called.count, called.address, called.remedy.split(",")[0]) == (
            2,
            "127.0.0.1",
            "Correct the called AE title at the sender",
        )
        assert "calling_ae_titles" in rows[RejectionKind.CALLING, "ALNNODE", "STRANGER"].remedy
        contexts = rows[RejectionKind.CONTEXTS, "ALNNODE", "CT1"]
        assert (contexts.count, contexts.detail) == (2, "proposed: CT Image Storage")
        assert rows[RejectionKind.ADDRESS, "", ""].address == "127.0.0.9"
        assert table.totals()[RejectionKind.CALLED] == 2
    log = re.sub("\x1b\\[[0-9;]*m", "", listener.log.read_text())
    assert log.count("association_rejected") == 3, (
        "equal rejections are logged once a minute; the refused address has a line of its own"
    )
    assert "called_ae_title=ALNODE" in log
    assert "remedy=" in log


def test_what_a_peer_sends_is_cleaned() -> None:
    clean = Rejection(RejectionKind.CALLED, "A\x1b[31mB\n\\", "Ä" * 40, "::1%<script>", "x" * 1000).cleaned()
    assert (clean.called_ae, clean.calling_ae) == ("A?[31mB?\\", "?" * 16)
    assert (clean.address, len(clean.detail)) == ("::1%<script>", 255), "the page escapes it"


NO_REQUESTS = {
    bytes((0x16, 3, 1, 2, 0, 1)): "TLS on a port without TLS",
    b"GET / HTTP/1.1\r\n\r\n": "the first PDU is no association request",
    struct.pack(">BBI", 1, 0, 1 << 30): "the association request is too long",
}


def test_what_is_no_association_request_is_aborted_and_listed(tmp_path) -> None:
    with listening(tmp_path, "") as (listener, table):
        for source, first in enumerate(NO_REQUESTS, 1):
            with socket.create_connection(("127.0.0.1", listener.port), source_address=(f"127.0.0.{source}", 0)) as peer:
                peer.settimeout(20)
                peer.sendall(first)
                assert peer.recv(10) == bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0)), "A-ABORT (PS3.8 9.3.8)"
                assert peer.recv(1) == b""
        wait_for(lambda: len(table.recent()) == len(NO_REQUESTS))
        assert {(row.kind, row.detail) for row in table.recent()} == {
            (RejectionKind.PROTOCOL, detail) for detail in NO_REQUESTS.values()
        }
        assert all("TLS" in row.remedy for row in table.recent())
        listener.associate().release()


def test_a_flood_fills_neither_memory_nor_log_nor_database(engine, capsys) -> None:
    table = RejectedAssociations(engine, interval=0.01)
    for number in range(3000):
        table.note(Rejection(RejectionKind.CALLED, f"T{number}", "CT1", "192.0.2.7"), NOW + timedelta(seconds=number))
        assert len(table._waiting) <= rejected_associations.MAX_WAITING
    wait_for(lambda: table.totals()[RejectionKind.CALLED] == 3000)
    table.close()
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(RejectionRow)).scalar_one() <= rejected_associations.MAX_ROWS
    assert capsys.readouterr().out.count("association_rejected") <= rejected_associations.MAX_LINES
    assert len(table.recent(5)) == 5


def test_counts_survive_a_database_that_is_away_for_a_while(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'alnnode.db'}"
    table = RejectedAssociations(engines.create(url), interval=0.01)
    table.note(Rejection(RejectionKind.USER, "ALNNODE", "CT1", "192.0.2.7"))
    wait_for(lambda: not table._waiting)
    schema.migrate(url)
    table.note(Rejection(RejectionKind.USER, "ALNNODE", "CT1", "192.0.2.7"))
    wait_for(lambda: table.totals()[RejectionKind.USER] == 2)
    table.close()
