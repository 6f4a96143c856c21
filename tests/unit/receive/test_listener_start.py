"""The start of a listener whose storage does not give what waits in the journal."""

import threading

from listening import free_port

from alnnode.db.schema import migrate
from alnnode.receive import recorder, scp
from alnnode.settings import Settings


def test_a_journal_that_cannot_be_read_does_not_stop_the_start(tmp_path, monkeypatch) -> None:
    settings = Settings(node={"data_dir": tmp_path}, listener={"port": free_port()})
    migrate(settings.database_url)
    stop, ready = threading.Event(), []

    def fail(*_):
        raise OSError(5, "the storage does not give an object")

    def started(port: int) -> None:
        ready.append(port)
        stop.set()

    replay = recorder.replay
    monkeypatch.setattr(recorder, "replay", lambda *given: fail() if not ready else replay(*given))
    scp.run_listener(settings, started, stop)
    assert ready == [settings.listener.port]
