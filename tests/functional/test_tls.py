"""DICOM TLS of listener and destinations: which peers are admitted, with DCMTK, Python's OpenSSL and pynetdicom."""

import os
import socket
import ssl
import subprocess
import threading
from contextlib import closing, contextmanager, suppress

import dicom_objects
import pytest
from certificates import Authority
from listening import Listener, free_port, wait_for
from programs import PROGRAMS, system

from alnnode.cli.check import run as check
from alnnode.db import schema
from alnnode.deliver.cstore import CStoreDestination
from alnnode.deliver.destination import OutboxFile
from alnnode.errors import DeliveryError
from alnnode.receive.rejected_associations import MAX_LINES
from alnnode.settings import ClientTls, DestinationCStore

pytestmark = [pytest.mark.dcmtk, pytest.mark.skipif(system("storescu") is None, reason="NO DCMTK: apt install dcmtk")]


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    return Authority(folder / "ours"), Authority(folder / "strange")


def table(ours, more="") -> str:
    node = ours.issue("node.example")
    return f'[listener.tls]\ncertificate = "{node.certificate}"\nprivate_key = "{node.key}"\nca = "{ours.pem}"\n{more}'


@pytest.fixture
def listen(tmp_path, authorities):
    made = []

    def start(more="", association_timeout=2) -> Listener:
        url = f"sqlite:///{tmp_path / 'alnnode.db'}"
        schema.migrate(url)
        listener = Listener(tmp_path, url, table(authorities[0], more), internal=f"association_timeout = {association_timeout}")
        made.append(listener)
        listener.start()
        return listener

    yield start
    for listener in made:
        listener.stop()


def client(authority, *, own=None, version=None, ciphers=None) -> ssl.SSLContext:
    """A TLS client that can do what the node must refuse."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if authority is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(authority.pem)
    if own:
        context.load_cert_chain(*own)
    if ciphers:
        context.set_ciphers(ciphers)
    if version:
        context.minimum_version = context.maximum_version = version
    return context


# -- listener ----------------------------------------------------------------------------------------------------------


def dcmtk_arguments(ours, strange, case):
    pair = {
        "right": lambda: ours.issue("ct1.example"),
        "unknown authority": lambda: strange.issue("ct1.example"),
        "expired": lambda: ours.issue("ct1.example", ended=True),
        "wrong name": lambda: ours.issue("other.example"),
        "no certificate": lambda: None,
    }[case]()
    own = ["+tla"] if pair is None else ["+tls", pair.key, pair.certificate]
    return [*own, "+cf", ours.pem, "-aec", "ALNNODE", "127.0.0.1"]


@pytest.mark.parametrize("case", ["right", "unknown authority", "expired", "wrong name", "no certificate"])
def test_who_is_let_in_by_dcmtk(listen, dcmtk, authorities, tmp_path, case) -> None:
    listener = listen('peer_names = ["ct1.example"]')
    arguments = dcmtk_arguments(*authorities, case)
    path = tmp_path / "image.dcm"
    dicom_objects.ct(1).save_as(path, enforce_file_format=True)
    echo = dcmtk("echoscu", *arguments, listener.port)
    stored = dcmtk("storescu", *arguments, listener.port, path)
    if case == "right":
        assert (echo.returncode, stored.returncode) == (0, 0), stored.stderr
        wait_for(lambda: listener.recorded() == 1)
        assert "tls_refused" not in listener.log.read_text()
    else:
        assert echo.returncode != 0
        assert stored.returncode != 0
        assert listener.recorded() == 0
        assert not list(listener.spool.pending())
        wait_for(lambda: listener.log.read_text().count("tls_refused") >= 2)  # DCMTK can end before the listener logs it
        assert listener.log.read_text().count("tls_refused") == 2
        # With the right certificate DCMTK succeeds: the certificate was the reason, and the listener still works.
        assert dcmtk("echoscu", *dcmtk_arguments(*authorities, "right"), listener.port).returncode == 0


# Non-downgrading BCP 195, BCP 195, and a suite of TLS 1.2 by name; then authentication without encryption, once a profile of IHE ATNA.
PROFILES = {"+py": True, "+px": True, "+cs TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": True, "+pn": False}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_profiles_of_dcmtk(listen, dcmtk, authorities, profile) -> None:
    listener = listen()
    echo = dcmtk("echoscu", *profile.split(), *dcmtk_arguments(*authorities, "right"), listener.port)
    assert (echo.returncode == 0) is PROFILES[profile], echo.stderr
    if PROFILES[profile]:
        assert "tls_refused" not in listener.log.read_text()
    else:
        wait_for(lambda: "tls_refused" in listener.log.read_text())  # DCMTK can end before the listener logs it


def test_a_flood_of_failed_handshakes_does_not_fill_the_log(listen, authorities) -> None:
    listener = listen()
    for _ in range(MAX_LINES + 10):
        with socket.create_connection(("127.0.0.1", listener.port)) as peer, suppress(OSError):
            peer.settimeout(20)
            peer.sendall(b"no TLS")
            peer.recv(1024)
    ours, _ = authorities
    good = listener.associate(tls_args=(client(ours, own=ours.issue("ct1.example")), "node.example"))
    assert good.is_established
    good.release()
    assert listener.log.read_text().count("tls_refused") == MAX_LINES


def test_a_port_with_tls_takes_nothing_else(listen, dcmtk) -> None:
    listener = listen()
    assert dcmtk("echoscu", "-aec", "ALNNODE", "127.0.0.1", listener.port).returncode != 0
    assert not listener.associate().is_established


WEAK = {
    "TLS 1.0": {"version": ssl.TLSVersion.TLSv1, "ciphers": "ALL:@SECLEVEL=0"},
    "TLS 1.1": {"version": ssl.TLSVersion.TLSv1_1, "ciphers": "ALL:@SECLEVEL=0"},
    "anonymous cipher": {"version": ssl.TLSVersion.TLSv1_2, "ciphers": "aNULL:@SECLEVEL=0"},
    "no encryption": {"version": ssl.TLSVersion.TLSv1_2, "ciphers": "eNULL:@SECLEVEL=0"},
    "no forward secrecy": {"version": ssl.TLSVersion.TLSv1_2, "ciphers": "kRSA:@SECLEVEL=0"},
    "CBC": {"version": ssl.TLSVersion.TLSv1_2, "ciphers": "ECDHE+AES+SHA256:!AESGCM:!AESCCM"},
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", WEAK)
def test_old_versions_and_weak_suites_are_refused(listen, authorities, case) -> None:
    ours, _ = authorities
    listener = listen()
    own = ours.issue("ct1.example")
    weak = client(None if "anonymous" in case else ours, own=own, **WEAK[case])
    assert not listener.associate(tls_args=(weak, "node.example")).is_established
    wait_for(lambda: "tls_refused" in listener.log.read_text())
    good = listener.associate(tls_args=(client(ours, own=own), "node.example"))
    assert good.is_established
    good.release()
    if case != "no forward secrecy":  # needs an RSA key on the other side
        assert lax_server_takes(weak, ours), f"this client cannot do {case} at all"


def lax_server_takes(context, ours) -> bool:
    """Return whether a server that allows everything completes the handshake: then it is the node that refuses it above."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*ours.issue("node.example"))
    server.minimum_version = ssl.TLSVersion.TLSv1
    server.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection, server.wrap_socket(connection, server_side=True) as encrypted:
                encrypted.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with (
            socket.create_connection(listening.getsockname(), 5) as plain,
            context.wrap_socket(plain, server_hostname="x") as it,
        ):
            it.send(b"x")
        thread.join(5)
        return not thread.is_alive()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_carry_large_objects(listen, authorities, version) -> None:
    listener = listen()
    ours, _ = authorities
    context = client(ours, own=ours.issue("ct1.example"), version=version)
    association = listener.associate(tls_args=(context, "node.example"))
    originals = [dicom_objects.ct(number, side=1024) for number in range(4)]
    assert [association.send_c_store(dataset).Status for dataset in originals] == [0] * 4
    association.release()
    wait_for(lambda: listener.recorded() == 4)
    sizes = sorted(path.stat().st_size for path in listener.paths())
    assert sizes[0] > 2 << 20


def test_a_connection_that_never_shakes_hands_is_dropped_and_holds_nobody_up(listen, authorities) -> None:
    listener = listen(association_timeout=5)
    ours, _ = authorities
    with closing(socket.create_connection(("127.0.0.1", listener.port))) as silent:
        for _ in range(5):
            with closing(socket.create_connection(("127.0.0.1", listener.port))):
                pass  # a load balancer's probe
        association = listener.associate(tls_args=(client(ours, own=ours.issue("ct1.example")), "node.example"))
        assert association.is_established
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):  # the silent connection is still there: the association did not wait for its end
            silent.recv(1)
        association.release()
        silent.settimeout(20)
        assert silent.recv(1) == b"", "the listener drops it after association_timeout"


def test_a_handshake_that_trickles_in_is_dropped_on_time(listen) -> None:
    listener = listen()
    with closing(socket.create_connection(("127.0.0.1", listener.port))) as slow:
        slow.settimeout(0.2)
        hello = bytes.fromhex("16030102000100 01fc0303") + bytes(500)
        # Each byte comes within the timeout of a single read; these 30 take 6 s, and association_timeout is 2 s for the whole handshake.
        with pytest.raises(OSError):  # noqa: PT012
            for byte in hello[:30]:
                slow.send(bytes([byte]))
                with suppress(TimeoutError):
                    if slow.recv(1) == b"":
                        raise ConnectionResetError


def test_a_renewed_certificate_counts_without_a_restart(listen, authorities) -> None:
    listener = listen()
    ours, _ = authorities
    tls = listener.settings.listener.tls
    context = client(ours, own=ours.issue("ct1.example"))
    context.check_hostname = True
    kept = listener.associate(tls_args=(context, "node.example"))
    assert kept.is_established
    assert not listener.associate(tls_args=(context, "renewed.example")).is_established

    tls.certificate.write_text("no certificate", encoding="ascii")
    still = listener.associate(tls_args=(context, "node.example"))
    assert still.is_established, "an unusable file must leave the old certificate in place"
    still.release()
    assert "certificate_not_reloaded" in listener.log.read_text()

    ours.issue("renewed.example", to=(type(ours.issue("x.example"))(tls.certificate, tls.private_key)))
    renewed = listener.associate(tls_args=(context, "renewed.example"))
    assert renewed.is_established
    renewed.release()
    assert kept.send_c_store(dicom_objects.ct(1)).Status == 0, "an association under way is not cut"
    kept.release()


# -- destinations ------------------------------------------------------------------------------------------------------


@contextmanager
def storescp(folder, pair, ours, *extra):
    """DCMTK's Storage SCP with TLS; yields its port."""
    port = free_port()
    process = subprocess.Popen(
        ["storescp", "+tls", pair.key, pair.certificate, "+cf", ours.pem, *extra, "--accept-all", "-od", folder, str(port)],
        env={**os.environ, "PATH": PROGRAMS},
    )

    def listens() -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(listens)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def destination(port, ca, own=None, name="pacs.example") -> CStoreDestination:
    keys = {} if own is None else {"certificate": own.certificate, "private_key": own.key}
    tls = ClientTls(ca=ca, server_name=name, **keys)
    return CStoreDestination(
        DestinationCStore(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout=10, tls=tls), "ALNNODE"
    )


def outbox(tmp_path) -> OutboxFile:
    dataset = dicom_objects.ct(1)
    path = tmp_path / "result.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return OutboxFile(dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.file_meta.TransferSyntaxUID, path)


def test_results_go_to_dcmtk_over_tls(tmp_path, authorities) -> None:
    ours, _ = authorities
    folder = tmp_path / "received"
    folder.mkdir()
    with storescp(folder, ours.issue("pacs.example"), ours) as port:
        right = destination(port, ours.pem, ours.issue("node.example"))
        right.echo()
        right.send([outbox(tmp_path)])
        assert len(list(folder.iterdir())) == 1


REFUSED = {
    "unknown authority": "self-signed certificate in certificate chain|unable to get local issuer",
    "expired": "certificate has expired",
    "wrong name": "Hostname mismatch",
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_node_sends_nothing_to_a_server_that_is_not_the_right_one(tmp_path, authorities, case) -> None:
    ours, strange = authorities
    pair = {
        "unknown authority": lambda: strange.issue("pacs.example"),
        "expired": lambda: ours.issue("pacs.example", ended=True),
        "wrong name": lambda: ours.issue("other.example"),
    }[case]()
    folder = tmp_path / "received"
    folder.mkdir()
    with storescp(folder, pair, ours) as port:
        wrong = destination(port, ours.pem, ours.issue("node.example"))
        with pytest.raises(DeliveryError, match=REFUSED[case]):
            wrong.echo()
        with pytest.raises(DeliveryError):
            wrong.send([outbox(tmp_path)])
        assert not list(folder.iterdir())


def test_a_pacs_that_asks_for_a_certificate_gets_one_or_nothing(tmp_path, authorities) -> None:
    ours, _ = authorities
    folder = tmp_path / "received"
    folder.mkdir()
    with storescp(folder, ours.issue("pacs.example"), ours) as port, pytest.raises(DeliveryError):
        destination(port, ours.pem).send([outbox(tmp_path)])
    assert not list(folder.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", ["TLS 1.0", "anonymous cipher", "no TLS"])
def test_the_node_speaks_to_no_old_weak_or_plain_server(authorities, case) -> None:
    ours, _ = authorities
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ours.issue("pacs.example"))
    if case != "no TLS":
        context.set_ciphers(WEAK[case]["ciphers"])
        context.minimum_version = context.maximum_version = WEAK[case]["version"]
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection:
                if case == "no TLS":
                    connection.recv(4096)
                    return connection.sendall(bytes.fromhex("070000000004 00000000"))
                try:
                    seen.append(context.wrap_socket(connection, server_side=True).recv(10))
                except OSError:
                    return None

        seen: list[bytes] = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(DeliveryError, match="no TLS connection"):
            destination(listening.getsockname()[1], ours.pem).echo()
        thread.join(10)
        assert seen == []


def test_check_tells_a_certificate_that_ends(tmp_path, authorities) -> None:
    ours, _ = authorities

    def certificate(pair):
        extra = f'[listener.tls]\ncertificate = "{pair.certificate}"\nprivate_key = "{pair.key}"\nca = "{ours.pem}"'
        settings = Listener(tmp_path, f"sqlite:///{tmp_path / 'alnnode.db'}", extra).settings
        return next(line for line in check(settings, None) if line.what.startswith("certificate"))

    good = ours.issue("node.example")
    assert certificate(good).passed
    ended = certificate(ours.issue("node.example", ended=True))
    assert not ended.passed
    assert "expired on" in ended.found
    assert not certificate(good._replace(key=ours.issue("other.example").key)).passed
