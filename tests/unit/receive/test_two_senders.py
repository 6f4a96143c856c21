"""Two senders of one SOP Instance UID: no sender is acknowledged by a file of the other that may not be on the disk."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dicom_objects import ct, data_set, file_of
from listening import wait_for

from alnnode.db import engine
from alnnode.db.schema import migrate
from alnnode.errors import RejectedObject
from alnnode.receive.acceptor import Acceptor, StoreRequest
from alnnode.receive.received_series import ReceivedSeries
from alnnode.receive.recorder import replay
from alnnode.settings import Settings
from alnnode.spool import durable_files
from alnnode.spool import spool as spools
from alnnode.spool.spool import Spool

IMAGE = ct(1)
DATA = data_set(IMAGE)
REQUEST = StoreRequest(transfer_syntax="1.2.840.10008.1.2.1", calling_ae="CT1")


class Syncs:
    """Replaces ``os.fsync``: the first sync of an object waits for ``release``, and fails if ``fails``; notes what was synced."""

    def __init__(self, *, fails: bool) -> None:
        self._real, self._fails, self._lock = os.fsync, fails, threading.Lock()
        self.first, self.release = threading.Event(), threading.Event()
        self.synced: set[int] = set()

    def __call__(self, handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink()
        with self._lock:
            first = name.parent.name == "incoming" and not self.first.is_set()
            if first:
                self.first.set()
        if first:
            assert self.release.wait(60)
            if self._fails:
                raise OSError(errno.EIO, "the disk has failed")
        self._real(handle)
        self.synced.add(os.fstat(handle).st_ino)


@pytest.fixture
def node(tmp_path):
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    database, spool = engine.create(url), Spool(tmp_path / "spool")
    acceptor = Acceptor(Settings.model_validate({"retention": {"min_free_mb": 0}}), ReceivedSeries(database), spool)
    yield acceptor, spool, ReceivedSeries(database)
    acceptor.close()


def inodes(spool) -> set[int]:
    return {path.stat().st_ino for folder in ("pending", "objects") for path in (spool.root / folder).rglob("*.dcm")}


@pytest.mark.parametrize("fails", [True, False])
def test_the_second_sender_is_acknowledged_only_by_bytes_that_are_on_the_disk(node, monkeypatch, *, fails) -> None:
    acceptor, spool, _ = node
    syncs = Syncs(fails=fails)
    monkeypatch.setattr(os, "fsync", syncs)
    with ThreadPoolExecutor(2) as senders:
        first = senders.submit(acceptor.store, DATA, REQUEST)
        assert syncs.first.wait(60)
        second = senders.submit(acceptor.store, DATA, REQUEST)
        try:
            wait_for(lambda: second.done() or len(list((spool.root / "incoming").iterdir())) == 2)
            with pytest.raises(TimeoutError):
                second.result(0.3)  # neither acknowledged nor refused while the outcome of the first sync is not known
        finally:
            syncs.release.set()
        assert second.result(60).sop_instance_uid == IMAGE.SOPInstanceUID
        if fails:
            with pytest.raises(RejectedObject, match="the disk does not accept the object"):
                first.result(60)
        else:
            first.result(60)
    assert inodes(spool)
    assert inodes(spool) <= syncs.synced


def left_by_a_killed_process(spool) -> int:
    left = spool.pending_path(IMAGE.SOPInstanceUID)
    left.write_bytes(b"".join(file_of(DATA, IMAGE.SOPInstanceUID)))
    return left.stat().st_ino


def test_a_file_that_a_killed_process_left_before_its_sync_is_synced_before_it_acknowledges_a_sender(node, monkeypatch) -> None:
    acceptor, spool, _ = node
    inode, syncs = left_by_a_killed_process(spool), Syncs(fails=False)
    syncs.release.set()
    monkeypatch.setattr(os, "fsync", syncs)
    assert acceptor.store(DATA, REQUEST).sop_instance_uid == IMAGE.SOPInstanceUID
    assert inode in syncs.synced


@pytest.mark.parametrize("fails", [True, False])
def test_a_file_that_a_killed_process_left_before_its_sync_is_synced_at_the_start(node, monkeypatch, *, fails) -> None:
    _, spool, received = node
    inode, syncs = left_by_a_killed_process(spool), Syncs(fails=False)
    syncs.release.set()
    failing = [inode] if fails else []

    def sync(handle: int) -> None:
        if os.fstat(handle).st_ino in failing:
            failing.clear()  # the number can be that of another file later
            raise OSError(errno.EIO, "the disk has failed")
        syncs(handle)

    monkeypatch.setattr(os, "fsync", sync)
    assert replay(received, spool) == 1
    assert not failing
    assert inodes(spool) <= syncs.synced


def test_a_sender_does_not_wait_for_another_without_end(node, monkeypatch) -> None:
    acceptor, spool, _ = node
    left_by_a_killed_process(spool)
    monkeypatch.setattr(spools, "SYNC_LIMIT", 0.1)
    with spool.pending_path(IMAGE.SOPInstanceUID).open("rb") as held:
        durable_files.lock(held.fileno())
        with pytest.raises(RejectedObject) as refused:
            acceptor.store(DATA, REQUEST)
    assert refused.value.status == 0xA700


def test_a_failed_sync_removes_only_its_own_file(node, monkeypatch) -> None:
    acceptor, spool, _ = node
    pending = spool.pending_path(IMAGE.SOPInstanceUID)

    def replaced(_: int) -> None:
        pending.unlink()
        pending.write_bytes(b"another")
        raise OSError(errno.EIO, "the disk has failed")

    monkeypatch.setattr(os, "fsync", replaced)
    with pytest.raises(RejectedObject):
        acceptor.store(DATA, REQUEST)
    assert pending.read_bytes() == b"another"
    pending.unlink()
