"""Storage commitment as SCP and SCU: real listeners and peers; answers on the same and on other associations, lost and late."""

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.request import Request, urlopen

import dicom_objects
import pytest
from listening import Listener, free_port, wait_for
from programs import system
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import update
from stages import TERMS
from typer.testing import CliRunner
from viewers import orthanc

from alnnode.analyse.operator_actions import OperatorActions
from alnnode.cli.app import app
from alnnode.clients.commitment_scu import LINGER, CommitmentUser, read_request, read_result
from alnnode.db import engine, schema
from alnnode.db.rows import ResultRow
from alnnode.db.tables import Delivery, DeliveryState, RequestState
from alnnode.deliver.commitments import MAX_RESENDS, Commitments
from alnnode.receive.acceptor import Acceptor, StoreRequest
from alnnode.receive.commitment_requests import CommitmentRequests
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import JobState, ObjectRole
from alnnode.retention.file_retention import FileExpiry, FileRetention
from alnnode.settings import DestinationCStore, load
from alnnode.status.overview import Overview
from workers import delivering
from workers.runtime import Runtime

EXPLICIT = "1.2.840.10008.1.2.1"
IMAGE = dicom_objects.ct(1)
LINGERS = {"same": 30, "other": 0.05}  # seconds; an answer on the same association ends the wait


class Peer:
    """A PACS and a router: records the results that it receives, and answers requests as ``answer`` says, on the same association or its own.

    Attributes:
        results: what the node told, with whether its association was the peer's own.
        failing: Failure Reasons by SOP Instance UID, used up by one answer each.
        refuse: how many N-EVENT-REPORTs are answered with a processing failure.
    """

    def __init__(self, node_port: int, port: int = 0, answer: str = "other") -> None:
        self.node_port, self.answer = node_port, answer
        self.results, self.stored, self.asked = [], [], []
        self.failing: dict[str, int] = {}
        self.refuse = 0
        self.entity = AE("PACS")
        for context in AllStoragePresentationContexts:
            self.entity.add_supported_context(context.abstract_syntax, EXPLICIT)
        self.entity.add_supported_context(StorageCommitmentPushModel, EXPLICIT, scu_role=True, scp_role=True)
        self.entity.acse_timeout = self.entity.dimse_timeout = self.entity.network_timeout = 30
        self._port = port
        self._server = None
        self.threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def start(self) -> None:
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action), (evt.EVT_N_EVENT_REPORT, self.told)]
        self._server = self.entity.start_server(("127.0.0.1", self._port), block=False, evt_handlers=handlers)

    def close(self) -> None:
        for thread in self.threads:
            thread.join()
        if self._server is not None:
            self._server.shutdown()

    def told(self, event):
        if self.refuse:
            self.refuse -= 1
            return 0x0110, None
        self.results.append((event.event_type, read_result(event.event_information), event.assoc.is_acceptor))
        return 0x0000, None

    def _store(self, event):
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _action(self, event):
        transaction, objects = read_request(event.action_information)
        self.asked.append(transaction)
        if self.answer != "never":
            self.threads.append(threading.Thread(target=self._reply, args=(event.assoc, transaction, objects)))
            self.threads[-1].start()
        return 0x0000, None

    def _reply(self, association, transaction, objects) -> None:
        if self.answer == "same":
            wait_for(lambda: not association._is_paused)  # its response to the request is sent
            self.report(association, transaction, objects)
            return
        with self.associated(role=True) as other:
            self.report(other, transaction, objects)

    @contextmanager
    def associated(self, calling="PACS", role=False):
        self.entity.ae_title = calling
        self.entity.requested_contexts = []
        self.entity.add_requested_context(CTImageStorage, EXPLICIT)
        self.entity.add_requested_context(StorageCommitmentPushModel, EXPLICIT)
        association = self.entity.associate(
            "127.0.0.1",
            self.node_port,
            ae_title="ALNNODE",
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)] if role else [],
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.told)],
        )
        assert association.is_established
        yield association
        association.release()

    def report(self, association, transaction, objects) -> int:
        event = Dataset()
        event.TransactionUID = transaction
        event.ReferencedSOPSequence, event.FailedSOPSequence = [], []
        for sop_class, uid in objects:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
            if uid in self.failing:
                item.FailureReason = self.failing.pop(uid)
                event.FailedSOPSequence.append(item)
            else:
                event.ReferencedSOPSequence.append(item)
        kind = 2 if event.FailedSOPSequence else 1
        answer, _ = association.send_n_event_report(event, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        return answer.Status


def ask(association, references, transaction=None, action=1, instance=StorageCommitmentPushModelInstance) -> int:
    question = Dataset()
    question.TransactionUID = transaction or generate_uid(prefix=None)
    question.ReferencedSOPSequence = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        question.ReferencedSOPSequence.append(item)
    answer, _ = association.send_n_action(question, action, StorageCommitmentPushModel, instance)
    return answer.Status


def reasons(result) -> dict[str, int]:
    return {uid: reason for (_, uid), reason in result.failed}


def test_what_was_asked_long_ago_is_forgotten_when_it_has_its_answer(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'alnnode.db'}"
    schema.migrate(url)
    requests, overview = CommitmentRequests(engine.create(url)), Overview(engine.create(url))
    now = datetime.now(UTC)
    long_ago = now - timedelta(days=31)
    one, other, _, new = (
        requests.receive("ROUTER", f"1.2.{number}", [("1.2", "1.2.3")], now - at, at)
        for number, at in enumerate((long_ago, long_ago, long_ago, now))
    )
    requests.answered(one, 0)
    requests.given_up(other, "deaf")
    requests.answered(new, 0)
    assert requests.delete_old() == 2
    assert overview.commitment_requests() == {RequestState.PENDING: 1, RequestState.ANSWERED: 1}


# -- the node as SCP -------------------------------------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path):
    """A listener, and a peer that may request commitment."""
    url, port = f"sqlite:///{tmp_path / 'alnnode.db'}", free_port()
    schema.migrate(url)
    listener = Listener(
        tmp_path,
        url,
        f'[[commitment.requesters]]\nae_title = "ROUTER"\nhost = "127.0.0.1"\nport = {port}\n'
        '[[commitment.requesters]]\nae_title = "STAYS"\n',
    )
    listener.start()
    peer = Peer(listener.port, port)
    yield listener, peer
    peer.close()
    listener.stop()


def test_what_is_held_is_committed_on_the_same_association(node) -> None:
    listener, peer = node
    images = [dicom_objects.ct(n) for n in range(1, 4)]
    references = [(CTImageStorage, image.SOPInstanceUID) for image in images]
    with peer.associated("STAYS") as association:
        for image in images:
            assert association.send_c_store(image).Status == 0
        assert ask(association, references) == 0
        wait_for(lambda: peer.results)
        kind, result, own = peer.results.pop()
        assert (kind, set(result.committed), result.failed, own) == (1, set(references), (), False)
        # Objects that are damaged, of another class, or never sent have their failure reasons; the others are committed.
        damaged = listener.spool.path(listener.spool.object_path(images[0].SeriesInstanceUID, images[0].SOPInstanceUID))
        data = bytearray(damaged.read_bytes())
        data[-1] ^= 1
        damaged.write_bytes(data)
        odd = [references[0], (MRImageStorage, images[1].SOPInstanceUID), (CTImageStorage, "1.2.3"), references[2]]
        assert ask(association, odd) == 0
        wait_for(lambda: peer.results)
        kind, result, _ = peer.results.pop()
        assert kind == 2
        assert result.committed == (references[2],)
        assert reasons(result) == {images[0].SOPInstanceUID: 0x0110, images[1].SOPInstanceUID: 0x0119, "1.2.3": 0x0112}


def test_who_may_ask_and_what_is_a_question(node) -> None:
    _, peer = node
    uid = generate_uid(prefix=None)
    with peer.associated("STRANGER") as association:
        assert ask(association, [(CTImageStorage, "1.2.3")]) == 0x0124
    with peer.associated("STAYS") as association:
        assert ask(association, [(CTImageStorage, "1.2.3")], action=2) == 0x0123
        assert ask(association, [(CTImageStorage, "1.2.3")], instance="1.2.3") == 0x0112
        assert ask(association, []) == 0x0115
        assert ask(association, [(CTImageStorage, "../../etc")]) == 0x0115
        # A repeated request is answered again; a request for other objects with the same Transaction UID fails.
        for objects, failure in ((["1.2.3"], 0x0112), (["1.2.3"], 0x0112), (["1.2.4"], 0x0131)):
            assert ask(association, [(CTImageStorage, one) for one in objects], uid) == 0
            wait_for(lambda: peer.results)
            assert reasons(peer.results.pop()[1]) == {objects[0]: failure}


def test_an_answer_outlives_its_association_a_deaf_requester_and_a_killed_listener(node) -> None:
    listener, peer = node
    requests = Overview(engine.create(listener.settings.database_url))
    with peer.associated("ROUTER") as association:
        association.send_c_store(IMAGE)
        transaction = generate_uid(prefix=None)
        peer.refuse = 1
        assert ask(association, [(CTImageStorage, IMAGE.SOPInstanceUID)], transaction) == 0
    # The requester does not listen at its configured port, and the listener that received the request is killed.
    wait_for(lambda: "commitment_deferred" in listener.log.read_text())
    assert requests.commitment_requests() == {RequestState.PENDING: 1}
    listener.processes[0].kill()
    listener.start()
    peer.refuse = 0
    peer.start()
    wait_for(lambda: peer.results, 150)  # an attempt that the kill interrupted is repeated after its lease of two minutes
    kind, result, own = peer.results.pop()
    assert (kind, result.transaction_uid, own) == (1, transaction, True)
    wait_for(lambda: requests.commitment_requests() == {RequestState.ANSWERED: 1})
    assert not peer.results


# -- the node as SCU -------------------------------------------------------------------------------------------------------


class Bench:
    """One job with three results that a PACS is to commit, and a listener for the answers of the PACS.

    Attributes:
        linger: seconds that the association of a request stays open for an answer.
    """

    linger = LINGER

    def __init__(self, folder, port, title="PACS") -> None:
        url = f"sqlite:///{folder / 'alnnode.db'}"
        schema.migrate(url)
        self.listener = Listener(folder, url)
        settings = self.listener.settings
        pacs = DestinationCStore(name="pacs", ae_title=title, host="127.0.0.1", port=port, commitment="wait", timeout=5)
        self.settings = settings.model_copy(update={"destinations": (pacs,)})
        self.runtime = Runtime(self.settings)
        self.runtime.commitment_user = self._commitment_user
        self.jobs, self.deliveries = self.runtime.tables.jobs, self.runtime.tables.deliveries
        self.database = engine.create(url)
        self.operator, received = OperatorActions(self.database), ReceivedSeries(self.database)
        acceptor = Acceptor(settings, received, self.listener.spool)
        acceptor.store(dicom_objects.data_set(IMAGE), StoreRequest(EXPLICIT, "CT1"))
        acceptor.close()
        (self.job,) = received.complete_due(settings.completion, lambda _: None, datetime.now(UTC) + timedelta(days=1))
        self._analyse()

    def _analyse(self) -> None:
        claim = self.jobs.claim(self.job, TERMS)
        rows = []
        for number in range(3):
            result = dicom_objects.ct(number, series="2.25.77")
            result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
            data = part10(result)
            path = self.listener.spool.put_result(self.job, result.SOPInstanceUID, data)
            names = (SecondaryCaptureImageStorage, result.SOPInstanceUID, "2.25.77", result.StudyInstanceUID, EXPLICIT)
            rows.append(ResultRow(number, ObjectRole.CAPTURE, *names, sha256(data), path))
        assert self.jobs.analysed(claim, rows, {"pacs": ("capture",)})
        self.uids = [row.sop_instance_uid for row in rows]

    def _commitment_user(self, name) -> CommitmentUser | None:
        user = Runtime.commitment_user(self.runtime, name)
        user._linger = self.linger
        return user

    def ask_at_most(self, attempts: int) -> None:
        internal = self.settings.internal.model_copy(update={"commitment_attempts": attempts})
        self.runtime.settings = self.settings.model_copy(update={"internal": internal})

    def turn(self) -> None:
        """Do once what the sweep and the delivering worker do."""
        for delivery in self.deliveries.due():
            delivering.deliver(delivery, self.runtime)

    def until(self, condition, seconds=30, *, unanswered=False):
        """Take turns until a condition is true. With ``unanswered``, the wait for the answer of the PACS ends before each turn."""

        def once():
            if unanswered:
                self.end_wait()
            self.turn()
            return condition()

        return wait_for(once, seconds)

    def end_wait(self) -> None:
        """Make the delivery due, as if the wait for the answer of the PACS had ended."""
        now = datetime.now(UTC)
        with self.database.begin() as connection:
            connection.execute(update(Delivery).values(next_attempt_at=now, due_at=now, enqueues=0))

    @property
    def delivery(self):
        return self.jobs.get(self.job).deliveries[0]

    @property
    def state(self):
        return self.jobs.get(self.job).state

    def purged(self) -> int:
        later = datetime.now(UTC) + timedelta(days=1)
        files = FileRetention(self.database, self.listener.spool, self.runtime.trail)
        return files.delete_expired(FileExpiry(later, later, later))


def part10(dataset) -> bytes:
    import io

    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def bench(tmp_path):
    peer = Peer(0)
    peer.start()
    made = Bench(tmp_path, peer.port)
    made.linger = LINGERS["other"]
    peer.node_port = made.listener.port
    yield made, peer
    peer.close()
    made.listener.stop()


@pytest.mark.parametrize("where", ["same", "other"])
def test_a_job_is_delivered_when_the_pacs_has_committed_its_results(bench, where) -> None:
    made, peer = bench
    peer.answer = "never"
    made.listener.start()
    made.turn()
    assert (made.state, made.delivery.state, made.purged()) == (JobState.ANALYSED, DeliveryState.COMMITTING, 0)
    assert sorted(peer.stored) == sorted(made.uids)
    assert Overview(engine.create(made.settings.database_url)).destinations()[0].committing == 1
    shown = CliRunner().invoke(app, ["jobs", "--config", str(made.listener._config), "--json"]).output
    assert json.loads(shown)[0]["deliveries"][0]["state"] == "COMMITTING"
    peer.answer, made.linger = where, LINGERS[where]
    made.end_wait()
    made.until(lambda: made.state is JobState.DELIVERED)
    assert made.delivery.committed_at is not None
    assert (len(peer.asked), len(peer.stored), made.purged()) == (2, 3, 1)


@pytest.mark.parametrize("where", ["same", "other"])
def test_a_pacs_that_commits_is_asked_once(bench, where) -> None:
    made, peer = bench
    peer.answer, made.linger = where, LINGERS[where]
    made.listener.start()
    made.until(lambda: made.state is JobState.DELIVERED)
    assert (len(peer.asked), len(peer.stored), made.purged()) == (1, 3, 1)


def test_what_is_not_committed_is_sent_again_and_nothing_else(bench) -> None:
    made, peer = bench
    made.listener.start()
    peer.failing = {made.uids[1]: 0x0112}
    made.turn()
    made.until(lambda: made.delivery.last_error)
    assert "1 object was not committed" in made.delivery.last_error
    assert "no such object instance (0x0112)" in made.delivery.last_error
    assert made.state is JobState.ANALYSED
    made.deliveries.reschedule("pacs", datetime.now(UTC))  # as if the wait had ended
    made.until(lambda: made.state is JobState.DELIVERED)
    assert sorted(peer.stored) == sorted([*made.uids, made.uids[1]])
    assert len(peer.asked) == 2


def test_what_is_never_committed_fails_with_the_reason_and_a_person_can_retry_it(bench) -> None:
    made, _ = bench
    commitments = Commitments(engine.create(made.settings.database_url))
    delivery = made.delivery.delivery_id
    for number in range(MAX_RESENDS + 1):
        assert made.state is JobState.ANALYSED
        assert commitments.sent(delivery, made.uids)
        commitments.ask(delivery, f"2.25.{number}")
        assert commitments.answered(f"2.25.{number}", set(made.uids[1:]), {made.uids[0]: "no such object"}, timedelta())
    assert made.state is JobState.FAILED
    assert made.jobs.get(made.job).reason == (
        "destination pacs refused: 1 of 3 objects are not committed though they were sent 4 times: no such object"
    )
    assert made.operator.retry(made.job) is JobState.ANALYSED
    # A late answer counts; an answer without a request does not.
    assert commitments.answered("2.25.0", set(made.uids), {}, timedelta())
    assert made.state is JobState.DELIVERED
    assert not commitments.answered("2.25.99", set(made.uids), {}, timedelta())


def test_a_lost_answer_is_asked_for_again_and_a_late_one_counts(bench) -> None:
    made, peer = bench
    peer.answer = "never"
    made.turn()
    made.until(lambda: len(peer.asked) == 2, unanswered=True)
    made.listener.start()  # a restart: the requests are in the database, not in a process
    with peer.associated(role=True) as association:
        objects = [(SecondaryCaptureImageStorage, uid) for uid in made.uids]
        assert peer.report(association, "1.2.3", objects) == 0, "the answer of a stranger is refused"
        assert made.delivery.state is DeliveryState.COMMITTING
        assert peer.report(association, peer.asked[0], objects) == 0
        assert peer.report(association, peer.asked[0], objects) == 0
    assert made.state is JobState.DELIVERED
    assert len(peer.stored) == 3


def test_a_pacs_that_never_answers_fails_the_delivery_and_a_person_can_retry_it(bench) -> None:
    made, peer = bench
    made.ask_at_most(3)
    peer.answer = "never"
    made.until(lambda: made.state is JobState.FAILED, unanswered=True)
    assert "accepted 3 storage commitment requests and answered none" in made.jobs.get(made.job).reason
    assert len(peer.asked) == 3
    made.ask_at_most(100)
    made.listener.start()
    peer.answer = "other"
    made.operator.retry(made.job)
    made.until(lambda: made.state is JobState.DELIVERED)
    assert len(peer.stored) == 2 * len(made.uids)


def test_an_answer_of_which_something_is_left_open_begins_the_count_again(bench) -> None:
    made, peer = bench
    made.ask_at_most(3)
    peer.answer = "never"
    made.until(lambda: len(peer.asked) == 2, unanswered=True)
    assert made.runtime.tables.commitments.answered(peer.asked[0], {made.uids[0]}, {}, timedelta())
    made.until(lambda: len(peer.asked) == 4, unanswered=True)
    assert made.state is JobState.ANALYSED
    made.until(lambda: made.state is JobState.FAILED, unanswered=True)
    assert len(peer.asked) == 5


def test_a_pacs_without_storage_commitment_is_a_refusal(tmp_path) -> None:
    entity = AE("PACS")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, EXPLICIT)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0)])
    made = Bench(tmp_path, server.server_address[1])
    made.turn()
    made.turn()
    assert made.state is JobState.FAILED
    assert "accepts none of the proposed presentation contexts" in made.jobs.get(made.job).reason
    server.shutdown()


# -- Orthanc ---------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(system("Orthanc") is None, reason="NO ORTHANC: apt-get install orthanc")
def test_orthanc_commits_results_and_has_its_images_committed(tmp_path) -> None:
    port = free_port()
    (tmp_path / "orthanc").mkdir()
    with orthanc(tmp_path / "orthanc", {"node": ["ALNNODE", "127.0.0.1", port]}) as (root, dicom):
        made = Bench(tmp_path, dicom)
        config = made.listener._config
        text = config.read_text(encoding="utf-8").replace(f"port = {made.listener.port}", f"port = {port}")
        asking = f'[[commitment.requesters]]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {dicom}\n'
        config.write_text(text + asking, encoding="utf-8")
        made.listener.port, made.listener.settings = port, load(config)
        made.listener.start()
        try:
            made.until(lambda: made.state is JobState.DELIVERED)
            assert made.delivery.committed_at is not None
            references = [[CTImageStorage, IMAGE.SOPInstanceUID], [CTImageStorage, "1.2.3"]]
            body = json.dumps({"DicomInstances": references}).encode()
            path = json.load(urlopen(Request(f"{root}/modalities/node/storage-commitment", body)))["Path"]
            report = wait_for(lambda: (found := json.load(urlopen(root + path)))["Status"] != "Pending" and found)
            assert report["Status"] == "Failure"
            assert [item["SOPInstanceUID"] for item in report["Success"]] == [IMAGE.SOPInstanceUID]
            assert [item["FailureReason"] for item in report["Failures"]] == [0x0112]
        finally:
            made.listener.stop()
