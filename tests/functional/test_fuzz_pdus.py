"""Malformed PDUs to a real listener: it does not end, does not hang, and keeps neither a place nor a thread for them."""

from datetime import timedelta
from pathlib import Path

import dicom_objects
import pytest
from hostile import damage, edits
from hostile_pdus import pdu, request, store_request, talk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from listening import Listener, wait_for

from alnnode.db import schema

OBJECT = dicom_objects.data_set(dicom_objects.ct(1, side=16))
MESSAGE, RELEASE = store_request(OBJECT), pdu(5, bytes(4))


@pytest.fixture(scope="module")
def listener(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    url = f"sqlite:///{folder / 'alnnode.db'}"
    schema.migrate(url)
    listener = Listener(folder, url, "timeout = 2\nmax_associations = 1000\n", internal="connection_rate = 10000")
    threads = Path(f"/proc/{listener.start().pid}/task")
    first = len(list(threads.iterdir()))
    listener.associate(called="WRONG")
    # The thread that writes rejections starts with the first one, and stays.
    wait_for(lambda: len(list(threads.iterdir())) == first + 1)
    yield listener
    listener.stop()


BOUNDED = settings(
    max_examples=60, deadline=timedelta(seconds=10), suppress_health_check=list(HealthCheck), derandomize=True, database=None
)


@pytest.mark.parametrize("target", ["request", "message", "both", "object"])
def test_damaged_pdus(listener, target) -> None:
    process = listener.processes[0]
    before = len(list(Path(f"/proc/{process.pid}/task").iterdir()))

    @BOUNDED
    @given(edits, st.sampled_from([200, None]))
    def attack(changes, head) -> None:
        if target == "request":
            talk(listener.port, damage(request(), changes), MESSAGE + RELEASE)
        elif target == "message":
            talk(listener.port, request(), damage(MESSAGE + RELEASE, changes, head=head))
        elif target == "object":
            talk(listener.port, request(), store_request(damage(OBJECT, changes, head=head)) + RELEASE)
        else:
            talk(listener.port, damage(request() + MESSAGE + RELEASE, changes), b"")
        assert process.poll() is None

    attack()
    # The longest waits: for the timeout of an association whose request is cut off, and of an abort without a response.
    wait_for(lambda: len(list(Path(f"/proc/{process.pid}/task").iterdir())) <= before, 15)
    association = listener.associate()
    assert association.send_c_store(dicom_objects.ct(7)).Status == 0
    association.release()
    assert association.is_released, "a peer is served as before: no attack holds a place or a thread that it needs"
    log = listener.log.read_text()
    assert "Traceback" not in log
    assert "uncaught" not in log
