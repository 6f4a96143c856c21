"""The peers of the node: a PACS that can misbehave, the network in front of it, and senders that record what was acknowledged."""

from __future__ import annotations

import hashlib
import logging
import queue
import socket
import threading
import time
from collections import deque
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import httpx
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel, Verification
from web_service import body, content_type, part10

from alnnode.clients.association import Peer
from alnnode.clients.commitment_scu import CommitmentUser, Reason, Result, read_request
from alnnode.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.studies import Study

EXPLICIT = "1.2.840.10008.1.2.1"
CHUNK = 4096  # bytes of a body that are sent at once
PATIENCE = 30  # seconds that a sender waits for an answer
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # lost peers are expected here


class Pacs:
    """A storage SCP.

    It reports Storage Commitment (PS3.4 Annex J) once, on its own association.

    Attributes:
        node: host and port to which it reports commitments.
        received: sha256 of the bytes received under each SOP Instance UID, one for each distinct content.
        studies: Study Instance UID of each object.
        reports: SOP Instance UIDs of structured reports, in the order in which they were first received.
        statuses: answers to the next C-STORE requests, before success.
        going: while cleared, the PACS does not answer.
    """

    def __init__(self, stored: Callable[[str], None] = lambda _: None, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.received: dict[str, set[str]] = {}
        self.studies: dict[str, str] = {}
        self.reports: list[str] = []
        self.statuses: deque[int] = deque()
        self.going = threading.Event()
        self.going.set()
        self._stored = stored
        self.node = ("127.0.0.1", 0)
        entity = AE("PACS")
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax)
        entity.add_supported_context(Verification)
        entity.add_supported_context(StorageCommitmentPushModel)
        entity.maximum_associations = 50
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._commit)]
        self._server = entity.start_server(address, block=False, evt_handlers=handlers)
        self.port: int = self._server.server_address[1]

    def _store(self, event: evt.Event) -> int:
        self.going.wait(30)
        if self.statuses:
            return self.statuses.popleft()
        uid = str(event.request.AffectedSOPInstanceUID)
        data = event.request.DataSet.getvalue()
        if uid not in self.received:
            self.studies[uid] = str(event.dataset.StudyInstanceUID)
            if event.dataset.Modality == "SR":
                self.reports.append(uid)
        self.received.setdefault(uid, set()).add(hashlib.sha256(data).hexdigest())
        self._stored(self.studies[uid])
        return 0x0000

    def _commit(self, event: evt.Event) -> tuple[int, None]:
        self.going.wait(30)
        transaction, objects = read_request(event.action_information)
        there = tuple(pair for pair in objects if pair[1] in self.received)
        failed = tuple((pair, int(Reason.NO_SUCH_OBJECT)) for pair in objects if pair not in there)
        threading.Thread(target=self._report_commitment, args=(Result(transaction, there, failed),), daemon=True).start()
        return 0x0000, None

    def _report_commitment(self, result: Result) -> None:
        with suppress(DeliveryError):  # the node is down and requests commitment again
            CommitmentUser(Peer("node", "ALNNODE", *self.node, 10), "PACS").report(result)

    def close(self) -> None:
        """Stop."""
        self.going.set()
        self._server.shutdown()


class Network:
    """A TCP proxy in front of a PACS; ``mode`` is pass, refuse, cut (once, after some bytes), delay or stall."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.mode = "pass"
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop accepting connections."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
                if self.mode == "refuse":
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            for connection in (near, far):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError), closing(source), closing(sink):
            while data := source.recv(16384):
                if self.mode == "cut":
                    sink.sendall(data[: len(data) // 2])
                    self.mode = "pass"
                    break
                while self.mode == "stall":
                    time.sleep(0.05)
                if self.mode == "delay":
                    time.sleep(0.02)
                sink.sendall(data)
            for connection in (source, sink):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class Senders:
    """Threads that send each study by C-STORE or STOW-RS until it is received completely, like a PACS with a retry queue.

    Attributes:
        cut: number of next objects during which the connection breaks.
        refused: number of times that a study was not received completely.
    """

    host, tls_args = "127.0.0.1", None

    def __init__(self, port: int, web_port: int, stored: Callable[[str], None], threads: int = 2) -> None:
        self._port, self._stored = port, stored
        self._url = f"http://{self.host}:{web_port}/dicom-web/studies"
        self.refused = 0
        self._queue: queue.SimpleQueue[Study | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self.cut = 0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def send(self, study: Study) -> None:
        """Send a study, again if it was sent before."""
        study.complete_at = None
        self._queue.put(study)

    def close(self) -> None:
        """Stop after the current studies."""
        self._stop.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        while (study := self._queue.get()) is not None:
            send = self._by_stow if study.http else self._by_c_store
            while not self._stop.is_set() and not send(study):
                self.refused += 1
                self._stop.wait(0.3)

    def _by_stow(self, study: Study) -> bool:
        try:
            answer = httpx.post(self._url, content=self._body(study), headers=content_type(), timeout=PATIENCE)
        except (httpx.HTTPError, BrokenPipeError):
            return False
        if answer.status_code not in {200, 202}:
            return False
        accepted = {one["00081155"]["Value"][0] for one in answer.json().get("00081199", {}).get("Value", [])}
        study.acknowledged |= accepted
        if accepted:
            self._stored(study.uid)
        if not accepted >= set(study.digests):
            return False
        study.complete_at = time.monotonic()
        return True

    def _body(self, study: Study) -> Iterator[bytes]:
        content = body(*map(part10, study.datasets))
        for start in range(0, len(content), CHUNK):
            yield content[start : start + CHUNK]
            if start and self.cut > 0:
                self.cut -= 1
                raise BrokenPipeError

    def _by_c_store(self, study: Study) -> bool:
        entity = AE("SENDER")
        entity.add_requested_context(CTImageStorage, [EXPLICIT])
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = PATIENCE
        association = entity.associate(self.host, self._port, ae_title="ALNNODE", tls_args=self.tls_args)
        if not association.is_established:
            return False
        try:
            for dataset in study.datasets:
                if self.cut > 0:
                    self.cut -= 1
                    association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
                answer = association.send_c_store(dataset)
                if answer.get("Status") != 0x0000:
                    association.abort()
                    return False
                study.acknowledged.add(dataset.SOPInstanceUID)
                self._stored(study.uid)
            association.release()
        except (RuntimeError, OSError, AttributeError, ValueError):  # pynetdicom raises these when the connection is lost
            return False
        study.complete_at = time.monotonic()
        return True


def echoes(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether the node answers a C-ECHO."""
    entity = AE("PROBE")
    entity.add_requested_context(Verification)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 5
    association = entity.associate(host, port, ae_title="ALNNODE")
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return status.get("Status") == 0x0000
