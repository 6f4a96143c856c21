"""A webhook receiver and a mail server for tests, which can hold their answers until they are released."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Receiver:
    """What a server received, and what it answers."""

    def __init__(self) -> None:
        self.port = 0
        self.received: list = []
        self.status = 204
        self.answers = threading.Event()  # cleared: answers wait
        self.answers.set()


@contextmanager
def webhook():
    """Run an HTTP server; ``received`` has headers and body of each request, before it is answered."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.received.append((dict(self.headers), body))
            found.answers.wait(60)
            self.send_response(found.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_) -> None:  # the client was killed
            pass

    server = Server(("127.0.0.1", 0), Handler)
    found.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        found.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def mail_server(**options):
    """Run aiosmtpd; ``received`` has sender, recipients and message of each mail, before it is answered."""
    controllers = pytest.importorskip("aiosmtpd.controller", reason="NO SMTP SERVER: pip install aiosmtpd")
    import asyncio

    found = Receiver()

    class Handler:
        async def handle_DATA(self, _server, _session, envelope):
            message = message_from_bytes(envelope.content, policy=default)
            found.received.append((envelope.mail_from, envelope.rcpt_tos, message))
            while not found.answers.is_set():  # noqa: ASYNC110 - the test sets it in another thread
                await asyncio.sleep(0.02)
            return "250 OK" if found.status == 204 else "451 later"

    class Controller(controllers.Controller):
        def _trigger_server(self) -> None:  # the port is known only now
            self.port = self.server.sockets[0].getsockname()[1]
            if self.ssl_context is None:
                super()._trigger_server()

    controller = Controller(Handler(), hostname="127.0.0.1", port=0, ready_timeout=60, **options)
    controller.start()
    found.port = controller.port
    try:
        yield found
    finally:
        found.answers.set()
        controller.stop()
