"""The HTTP application in this process, over a real spool and a real database; and STOW-RS bodies."""

import io
from contextlib import contextmanager
from threading import Event, Thread
from types import SimpleNamespace

from starlette.testclient import TestClient

from alnnode.db import schema
from alnnode.settings import Completion, Listener, Node, Retention, Settings, Web
from alnnode.web.app import create
from alnnode.web.server import Server, configure, listen
from alnnode.web.services import WebServices

BOUNDARY = "a-boundary"


def flat(services: WebServices) -> SimpleNamespace:
    """Return the services of all packages in one record, for tests."""
    return SimpleNamespace(
        services=services,
        settings=services.settings,
        engine=services.engine,
        acceptor=services.acceptor,
        trail=services.trail,
        access=services.http.access,
        spool=services.dicomweb.spool,
        catalogue=services.dicomweb.catalogue,
        attributes=services.dicomweb.attributes,
        jobs=services.worklist.jobs,
        operator=services.worklist.operator,
        worklist=services.worklist.worklist,
        subscriptions=services.worklist.subscriptions,
        event_reports=services.worklist.event_reports,
    )


@contextmanager
def service(folder, *, web=None, listener=None, retention=None, **sections):
    """Yield a client of the application, and the services that it uses."""
    settings = Settings(
        node=Node(data_dir=folder),
        completion=Completion(),
        listener=listener or Listener(),
        retention=retention or Retention(min_free_mb=0),
        web=web or Web(),
        **sections,
    )
    schema.migrate(settings.database_url)
    opened = WebServices.open(settings)
    try:
        with TestClient(create(opened), base_url="http://127.0.0.1:8124") as client:
            yield client, flat(opened)
    finally:
        opened.close()


def part10(dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def body(*files: bytes, boundary: str = BOUNDARY, kind: str = "application/dicom", end: bool = True) -> bytes:
    parts = [b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (boundary.encode(), kind.encode(), data) for data in files]
    return b"".join(parts) + (b"--%s--\r\n" % boundary.encode() if end else b"")


def content_type(boundary: str = BOUNDARY, kind: str = "application/dicom") -> dict[str, str]:
    return {"Content-Type": f'multipart/related; type="{kind}"; boundary={boundary}'}


def stow(client, *files: bytes, path: str = "/dicom-web/studies", headers=None):
    return client.post(path, content=body(*files), headers={**content_type(), **(headers or {})})


@contextmanager
def server(folder, *, web=None, **settings):
    """Yield the root URL of a real server on loopback, and the services that it uses."""
    settings = Settings(
        node=Node(data_dir=folder),
        retention=Retention(min_free_mb=0),
        web=(web or Web()).model_copy(update={"port": 0}),
        **settings,
    )
    schema.migrate(settings.database_url)
    listening, opened = listen(settings), WebServices.open(settings)
    started = Event()
    running = Server(configure(settings, opened), started.set)
    thread = Thread(target=running.run, args=([listening],))
    thread.start()
    try:
        assert started.wait(30)
        scheme = "https" if settings.web.tls else "http"
        yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}", flat(opened)
    finally:
        running.should_exit = True
        thread.join(30)
        opened.close()
        listening.close()
