"""Deliver results to a STOW-RS service with access control: over TLS, with a token from a file or from an authorization server."""

import json
import ssl
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import trustme
from dicom_objects import ct
from pydantic import ValidationError
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from web_service import part10, server

from alnnode.deliver.destination import OutboxFile
from alnnode.deliver.stow_client import StowDestination
from alnnode.errors import DeliveryError, DeliveryRefused
from alnnode.settings import ClientTls, DestinationCStore, DestinationStow, OAuth2, ServerTls, Web, WebToken

SECRET = "the-token-of-the-archive"


@pytest.fixture
def archive(tmp_path):
    """The HTTP service of another node as the archive, with HTTPS and tokens."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(str(tmp_path / "chain.pem"), append=bool(number))
    token = WebToken(name="NODE", roles=("send",), sha256=sha256(SECRET.encode()).hexdigest())
    web = Web(tokens=(token,), tls=ServerTls(certificate=tmp_path / "chain.pem", private_key=tmp_path / "key.pem"))
    with server(tmp_path / "archive", web=web) as (url, opened):
        yield url, opened


@pytest.fixture
def image(tmp_path):
    (tmp_path / "image.dcm").write_bytes(part10(ct(1)))
    return [OutboxFile(str(CTImageStorage), str(ct(1).SOPInstanceUID), str(ExplicitVRLittleEndian), tmp_path / "image.dcm")]


def destination(url, tmp_path, **more):
    tls = ClientTls(ca=tmp_path / "ca.pem")
    return StowDestination(DestinationStow(name="archive", url=f"{url}/dicom-web", tls=tls, **more))


def test_a_token_file_is_read_again_after_it_changed(archive, image, tmp_path) -> None:
    url, opened = archive
    to = destination(url, tmp_path, token_file=tmp_path / "token")
    with pytest.raises(DeliveryError, match="cannot read the file of its token or secret"):
        to.send(image)
    (tmp_path / "token").write_text("wrong\n")
    with pytest.raises(DeliveryRefused, match="401"):
        to.send(image)
    (tmp_path / "token").write_text(SECRET + "\n")
    to.send(image)
    opened.acceptor.close()
    assert len(opened.catalogue.instances()) == 1


def test_tokens_of_an_authorization_server_are_cached_and_renewed(archive, image, tmp_path) -> None:
    url, _ = archive
    asked, given = [], ["expired", SECRET]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked.append((form, self.headers["Authorization"]))
            data = json.dumps({"access_token": given.pop(0), "expires_in": 3600}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

    issuer = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=issuer.serve_forever, daemon=True).start()
    (tmp_path / "secret").write_text("client-secret")
    oauth2 = OAuth2(
        token_url=f"http://127.0.0.1:{issuer.server_port}/token",
        client_id="alnnode",
        client_secret_file=tmp_path / "secret",
        scope="dicom",
    )
    to = destination(url, tmp_path, oauth2=oauth2)
    try:
        with pytest.raises(DeliveryRefused, match="401"):
            to.send(image)
        to.send(image)
        to.send(image)
    finally:
        issuer.shutdown()
        issuer.server_close()
    assert [form for form, _ in asked] == ["grant_type=client_credentials&scope=dicom"] * 2
    assert {header.partition(" ")[0] for _, header in asked} == {"Basic"}


def test_the_node_sends_its_client_certificate(image, tmp_path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, issuer in (("node", authority), ("stranger", other)):
        issuer.issue_cert("node.example").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    taken = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            taken.append(dict(self.connection.getpeercert()["subjectAltName"]))
            self.send_response(200)
            self.end_headers()

    class Archive(ThreadingHTTPServer):
        def handle_error(self, *_):  # a client without certificate
            pass

    archive = Archive(("127.0.0.1", 0), Handler)
    archive.socket = context.wrap_socket(archive.socket, server_side=True, do_handshake_on_connect=False)
    Thread(target=archive.serve_forever, daemon=True).start()
    try:
        for name in (None, "stranger", "node"):
            pair = {} if name is None else {"certificate": tmp_path / f"{name}.pem", "private_key": tmp_path / f"{name}.pem"}
            tls = ClientTls(ca=tmp_path / "ca.pem", **pair)
            url = f"https://127.0.0.1:{archive.server_port}/dicom-web"
            to = StowDestination(DestinationStow(name="archive", url=url, tls=tls))
            if name == "node":
                to.send(image)
            else:
                with pytest.raises(DeliveryError):
                    to.send(image)
    finally:
        archive.shutdown()
        archive.server_close()
    assert taken == [{"DNS": "node.example"}]


def test_contradictory_settings_are_refused(tmp_path) -> None:
    with pytest.raises(ValidationError, match="token_file"):
        DestinationCStore(name="a", ae_title="A", host="h", port=104, token_file=tmp_path)
