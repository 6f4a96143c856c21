"""An audit record repository for tests, and the check of a message against the schema (PS3.15 section A.5)."""

import re
import ssl
import threading
from base64 import b64decode
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer, UDPServer

from lxml import etree

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parent / "audit_message.rng"))
# RFC 5424: facility 10, severity notice or warning; then version, time, host, application, process, message id, no structured data, BOM.
SYSLOG = re.compile(
    rb"<(84|85)>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z \S+ \S+ \d+ DICOM\+RFC3881 - \xef\xbb\xbf(<AuditMessage>.*)", re.DOTALL
)


class Read:
    """A received message, checked against the schema, with its values."""

    def __init__(self, xml: bytes) -> None:
        self.root = etree.fromstring(xml)
        SCHEMA.assertValid(self.root)
        event = self.root.find("EventIdentification")
        self.event = event.find("EventID").get("csd-code")
        self.types = [kind.get("csd-code") for kind in event.findall("EventTypeCode")]
        self.action, self.outcome = event.get("EventActionCode"), int(event.get("EventOutcomeIndicator"))
        self.description = event.findtext("EventOutcomeDescription") or ""
        self.source = self.root.find("AuditSourceIdentification").get("AuditSourceID")
        self.participants = [
            (
                (one.find("RoleIDCode").get("csd-code") if one.find("RoleIDCode") is not None else ""),
                one.get("UserID"),
                one.get("NetworkAccessPointID"),
            )
            for one in self.root.findall("ActiveParticipant")
        ]
        self.requestors = [one.get("UserID") for one in self.root.findall("ActiveParticipant[@UserIsRequestor='true']")]
        self.objects = {
            one.find("ParticipantObjectIDTypeCode").get("csd-code"): one
            for one in self.root.findall("ParticipantObjectIdentification")
        }

    @property
    def study(self) -> str:
        return self.objects["110180"].get("ParticipantObjectID")

    @property
    def instances(self) -> int:
        return sum(int(one.get("NumberOfInstances")) for one in self.objects["110180"].iter("SOPClass"))

    @property
    def query(self) -> str:
        return b64decode(self.objects["110181"].findtext("ParticipantObjectQuery")).decode()


class Repository:
    """The messages that it received, in their order."""

    def __init__(self) -> None:
        self.messages: list[Read] = []

    def receive(self, datagram: bytes) -> None:
        self.messages.append(Read(SYSLOG.fullmatch(datagram)[2]))

    def of(self, event: str) -> list[Read]:
        return [message for message in self.messages if message.event == event]


@contextmanager
def tls_repository(pair, authority, port=0):
    """Syslog over TLS (RFC 5425) that requires a client certificate; yields the repository and its port."""
    repository = Repository()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    context.load_verify_locations(authority.pem)
    context.verify_mode = ssl.CERT_REQUIRED

    class Handler(BaseRequestHandler):
        def handle(self):
            with suppress(OSError), context.wrap_socket(self.request, server_side=True) as peer:
                connections.append(peer)
                stream = peer.makefile("rb")
                while length := head(stream):
                    repository.receive(stream.read(length))

    def head(stream) -> int:
        """Length of the next message: digits and a space."""
        digits = b""
        while (byte := stream.read(1)) not in {b" ", b""}:
            digits += byte
        return int(digits or 0)

    connections: list[ssl.SSLSocket] = []

    class Server(ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

        def handle_error(self, *_):
            pass  # a peer whose handshake failed

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield repository, server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for connection in connections:
            connection.close()


@contextmanager
def udp_repository():
    """Syslog over UDP (RFC 5426)."""
    repository = Repository()

    class Handler(BaseRequestHandler):
        def handle(self):
            repository.receive(self.request[0])

    server = UDPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield repository, server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
