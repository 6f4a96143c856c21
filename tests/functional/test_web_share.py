"""One address uses only a share of the threads that answer requests, and rendering only some of them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from dicom_objects import ct
from listening import wait_for
from sqlalchemy import event
from status_pages import copied, filled
from web_service import body, content_type, part10, server

from alnnode.dicomweb import wado_rendered
from alnnode.dicomweb.qido_search import QidoSearch
from alnnode.http import address_share
from alnnode.http.address_share import SHARE
from alnnode.status import job_page

OTHER = "127.0.0.2"


class Held:
    """Work of the service that goes on until it is released; it counts how many threads are in it."""

    def __init__(self) -> None:
        self.running, self.most = 0, 0
        self.release = threading.Event()
        self._lock = threading.Lock()

    def hold(self) -> None:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.release.wait(60)
        with self._lock:
            self.running -= 1


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with server(tmp_path_factory.mktemp("web")) as (url, opened), httpx.Client(base_url=url, timeout=60) as client:
        assert client.post("/dicom-web/studies", content=body(part10(ct(1))), headers=content_type()).status_code == 200
        (instance,) = wait_for(lambda: client.get("/dicom-web/instances").json())
        place = [instance[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018")]
        yield client, opened, "/dicom-web/studies/{}/series/{}/instances/{}/rendered".format(*place)


@contextmanager
def held(monkeypatch, module, name: str, result):
    """Replace a function of the service by one that waits until the end of the block."""
    work = Held()

    def hold(*_arguments):
        work.hold()
        return result

    monkeypatch.setattr(module, name, hold)
    try:
        yield work
    finally:
        work.release.set()


def from_address(client, address: str) -> httpx.Client:
    return httpx.Client(base_url=client.base_url, timeout=60, transport=httpx.HTTPTransport(local_address=address))


def test_slow_searches_of_one_address_leave_threads_to_others(service, monkeypatch) -> None:
    client, _, _ = service
    monkeypatch.setattr(address_share, "PATIENCE", 1.0)
    with (
        from_address(client, OTHER) as greedy,
        ThreadPoolExecutor(45) as pool,
        held(monkeypatch, QidoSearch, "series", []) as searches,
    ):
        asked = [pool.submit(greedy.get, "/dicom-web/series") for _ in range(45)]
        wait_for(lambda: sum(one.done() for one in asked) == 45 - SHARE)
        assert searches.most == SHARE
        refused = [one.result() for one in asked if one.done()]
        assert {(one.status_code, one.headers["retry-after"]) for one in refused} == {(503, "5")}
        for _ in range(5):
            assert client.get("/dicom-web/studies").status_code == 200, "another address waits"
        stored = greedy.post("/dicom-web/studies", content=body(part10(ct(2))), headers=content_type())
        assert stored.status_code == 200, "the address cannot store"
        assert greedy.get("/health/live").status_code == 200
        searches.release.set()
        assert sorted(one.result().status_code for one in asked) == [200] * SHARE + [503] * (45 - SHARE)
        assert {greedy.get("/dicom-web/series").status_code for _ in range(3)} == {200}, "its turns come back"


def test_slow_queries_of_one_address_leave_connections_of_the_database_to_others(service) -> None:
    client, opened, _ = service
    work, slow = Held(), threading.Event()

    def hold(*_arguments) -> None:
        if slow.is_set() and threading.current_thread().name.startswith("AnyIO"):  # not the indexer and the performer
            work.hold()

    event.listen(opened.engine, "before_cursor_execute", hold)
    slow.set()
    with from_address(client, OTHER) as greedy, ThreadPoolExecutor(SHARE) as pool:
        try:
            asked = [pool.submit(greedy.get, "/dicom-web/series") for _ in range(SHARE)]
            wait_for(lambda: work.running == SHARE, 10)
            slow.clear()
            for path in ("/dicom-web/studies", "/", "/metrics"):
                assert client.get(path, timeout=10).status_code == 200, path
        finally:
            slow.clear()
            work.release.set()
        assert {one.result().status_code for one in asked} == {200}
    event.remove(opened.engine, "before_cursor_execute", hold)


def test_many_requests_at_once_wait_for_their_turn(service, monkeypatch) -> None:
    client, _, _ = service
    monkeypatch.setattr(address_share, "PATIENCE", 60.0)
    with (
        from_address(client, OTHER) as viewer,
        ThreadPoolExecutor(40) as pool,
        held(monkeypatch, QidoSearch, "series", []) as searches,
    ):
        asked = [pool.submit(viewer.get, "/dicom-web/series") for _ in range(40)]
        wait_for(lambda: searches.running == SHARE)
        searches.release.set()
        assert {one.result().status_code for one in asked} == {200}
        assert searches.most == SHARE


def test_four_images_are_rendered_at_the_same_time_and_three_of_one_address(service, monkeypatch) -> None:
    client, opened, url = service
    limiter, png = opened.services.dicomweb.renderings.limiter, {"Accept": "image/png"}
    with (
        from_address(client, OTHER) as greedy,
        ThreadPoolExecutor(12) as pool,
        held(monkeypatch, wado_rendered, "render", b"a picture") as drawing,
    ):
        asked = [pool.submit(greedy.get, url, headers=png) for _ in range(6)]
        wait_for(lambda: drawing.running == 3)
        time.sleep(0.3)
        assert drawing.running == 3
        asked += [pool.submit(client.get, url, headers=png) for _ in range(6)]
        wait_for(lambda: (drawing.running, limiter.statistics().tasks_waiting) == (4, 2))
        assert client.get("/dicom-web/studies").status_code == 200
        drawing.release.set()
        assert {(one.result().status_code, one.result().content) for one in asked} == {(200, b"a picture")}
        assert drawing.most == 4


def test_captures_on_the_page_of_a_job_are_among_the_four_images(tmp_path, monkeypatch) -> None:
    with filled(tmp_path / "template") as template, copied(template, tmp_path / "copy") as (client, opened, (job, _, _)):
        limiter, admin = opened.services.dicomweb.renderings.limiter, {"Authorization": "Bearer admin-secret"}
        with ThreadPoolExecutor(6) as pool, held(monkeypatch, job_page, "render", b"a picture") as drawing:
            asked = [pool.submit(client.get, f"/jobs/{job}/captures/1", headers=admin) for _ in range(6)]
            wait_for(lambda: limiter.statistics().borrowed_tokens == drawing.running == 3, 10)
            drawing.release.set()
            assert {(one.result().status_code, one.result().content) for one in asked} == {(200, b"a picture")}
            assert drawing.most == 3
