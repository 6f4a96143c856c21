"""STOW-RS acknowledges an object only after its own sync, and the fault of one object of a request touches no other."""

import errno
import os
import threading
from pathlib import Path

import pytest
from dicom_objects import ct
from web_service import part10, service, stow

IMAGES = 8
FAILED, STORED = "00081198", "00081199"


class Syncs:
    """Replaces ``os.fsync``: notes which files were synced, and hands the first object to ``fault``."""

    def __init__(self, fault=lambda: None) -> None:
        self._real, self._fault, self._lock = os.fsync, fault, threading.Lock()
        self.synced: set[int] = set()
        self.first: int | None = None
        self.others = threading.Event()

    def __call__(self, handle: int) -> None:
        found = os.fstat(handle)
        name = str(Path(f"/proc/self/fd/{handle}").readlink())
        if "/incoming/" in name:  # an object; not a folder or the database
            with self._lock:
                first = self.first is None
                if first:
                    self.first = found.st_ino
            if first:
                self._fault()
        self._real(handle)
        if "/incoming/" in name or "/pending/" in name:
            with self._lock:
                self.synced.add(found.st_ino)
                if len(self.synced - {self.first}) >= IMAGES - 1:
                    self.others.set()


def inodes(opened) -> set[int]:
    return {path.stat().st_ino for folder in ("pending", "objects") for path in (opened.spool.root / folder).rglob("*.dcm")}


def uids(answer, sequence: str) -> set[str]:
    return {item["00081155"]["Value"][0] for item in answer.json().get(sequence, {}).get("Value", [])}


@pytest.fixture
def node(tmp_path):
    with service(tmp_path) as (client, opened):
        yield client, opened


def test_the_answer_waits_for_the_sync_of_every_object(node, monkeypatch) -> None:
    client, opened = node
    release, answers = threading.Event(), []
    syncs = Syncs(lambda: release.wait(60))
    monkeypatch.setattr(os, "fsync", syncs)
    sender = threading.Thread(target=lambda: answers.append(stow(client, *(part10(ct(n)) for n in range(IMAGES)))))
    sender.start()
    try:
        assert syncs.others.wait(60)
        sender.join(0.3)
        assert not answers, "the request is answered although one object is not synced"
    finally:
        release.set()
        sender.join()
    assert answers[0].status_code == 200
    assert inodes(opened) <= syncs.synced
    assert len(uids(answers[0], STORED)) == IMAGES


def test_the_fault_of_one_object_touches_no_other(node, monkeypatch) -> None:
    client, opened = node

    def fail() -> None:
        raise OSError(errno.EIO, "the disk has failed")

    assert stow(client, part10(ct(50))).status_code == 200
    syncs = Syncs(fail)
    monkeypatch.setattr(os, "fsync", syncs)
    good = [ct(n) for n in range(IMAGES)]
    cut_off = part10(ct(60))[:-100]
    answer = stow(client, part10(good[0]), part10(ct(50)), cut_off, *map(part10, good[1:]))
    assert answer.status_code == 202
    reasons = {
        item.get("00081155", {}).get("Value", [""])[0]: item["00081197"]["Value"][0] for item in answer.json()[FAILED]["Value"]
    }
    assert sorted(reasons.values()) == [0xA700, 0xC000]
    (lost,) = (uid for uid, reason in reasons.items() if reason == 0xA700)
    sent = {str(image.SOPInstanceUID) for image in [*good, ct(50)]}
    assert uids(answer, STORED) == sent - {lost}
    # After a failed sync the kernel may call the next one a success, so a retry must write the bytes anew.
    assert not opened.spool.is_pending(lost)
    again = next(image for image in [*good, ct(50)] if image.SOPInstanceUID == lost)
    assert stow(client, part10(again)).status_code == 200
    opened.acceptor.close()
    assert {item.sop_instance_uid for item in opened.catalogue.instances()} == sent
