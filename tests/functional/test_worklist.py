"""The node performs workitems: it claims them, fetches their input, and completes or cancels them. The worklist runs on both databases."""

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from analyses import CONTEXT, analysis
from dicom_objects import STUDY, ct
from held import analysed, ready, received
from listening import wait_for
from web_service import part10, server, service, stow
from workitem import TRANSACTION, attribute, performed, workitem

from alnnode import report
from alnnode.errors import WorkitemRefused
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import JobState
from alnnode.settings import ArchiveDicomweb, Completion, Internal, Web, WebToken
from alnnode.settings import Worklist as WorklistSettings
from alnnode.spool.spool import Spool
from alnnode.worklist import ups
from alnnode.worklist.event_reports import EventReports
from alnnode.worklist.performer import Performer
from alnnode.worklist.performer_rows import PerformerRows
from alnnode.worklist.state_transitions import StateChange
from alnnode.worklist.subscriptions import Filter, Subscriptions
from alnnode.worklist.ups import FILTERED, GLOBAL, UpsState, UpsStatus
from alnnode.worklist.worklist import Worklist

ROOT, UID, SERIES = "/dicom-web/workitems", "1.2.826.0.1.3680043.10.9.1", f"{STUDY}.1"
TOKEN = "a-token-of-the-archive"
BY_HAND = {"worklist": WorklistSettings(perform=False), "internal": Internal(fetch_attempts=2)}


@pytest.fixture
def node(tmp_path):
    with service(tmp_path, **BY_HAND) as (client, opened):
        yield client, opened, Performer(opened)


def document(client, uid=UID):
    (found,) = client.get(f"{ROOT}/{uid}").json()
    return found


def state(client, uid=UID):
    return ups.value(document(client, uid), ups.STATE)


def progress(client, keyword):
    return ups.value(next(iter(ups.items(document(client), ups.PROGRESS)), {}), ups.tag(keyword))


def code(client):
    (item,) = ups.items(document(client), ups.PROGRESS)
    return ups.value(ups.items(item, ups.tag("ProcedureStepDiscontinuationReasonCodeSequence"))[0], "00080100")


def images(client, opened, series=SERIES):
    return received(opened, client, [part10(ct(n, series=series)) for n in (1, 2, 3)])


def test_a_workitem_goes_from_creation_to_completed_with_its_outputs(node) -> None:
    client, opened, performer = node
    job = images(client, opened)
    assert client.post(f"{ROOT}?{UID}", json=workitem(STUDY, SERIES)).status_code == 201
    performer.once()
    assert state(client) == "IN PROGRESS"
    performer.once()
    performer.once()
    assert progress(client, "ProcedureStepProgressDescription") == "waiting for images"
    analysed(opened, job, report.build(analysis(1), CONTEXT))
    Performer(opened).once()  # after a restart
    assert state(client) == "COMPLETED"
    assert progress(client, "ProcedureStepProgress") == "100"
    (done,) = ups.items(document(client), ups.PERFORMED)
    outputs = ups.items(done, ups.tag("OutputInformationSequence"))
    named = {ups.value(one, "00081155") for output in outputs for one in ups.items(output, "00081199")}
    assert named == {row.sop_instance_uid for row in opened.jobs.results(job)}
    for output in outputs:
        (place,) = ups.items(output, ups.tag("WADORSRetrievalSequence"))
        assert client.get(ups.value(place, "00081190")).status_code == 200
    begun, ended = (
        ups.parse_date_time(ups.value(done, ups.tag(f"PerformedProcedureStep{end}DateTime"))) for end in ("Start", "End")
    )
    assert begun <= ended
    late = "1.2.3.4"
    client.post(f"{ROOT}?{late}", json=workitem(STUDY, SERIES))
    for _ in range(3):
        performer.once()
    assert state(client, late) == "COMPLETED", "the series is already analysed: the results are the same"


def test_a_failing_workitem_does_not_stop_the_others(node, monkeypatch) -> None:
    client, opened, performer = node
    job = images(client, opened)
    for uid, series in (("1.2.3.1", "1.2.3.99"), (UID, SERIES)):
        client.post(f"{ROOT}?{uid}", json=workitem(STUDY, series))
    performer.once()
    original = PerformerRows.latest_job

    def broken(self, series_uid):
        return {}[series_uid] if series_uid == "1.2.3.99" else original(self, series_uid)

    monkeypatch.setattr(PerformerRows, "latest_job", broken)
    performer.once()
    assert opened.worklist.get(UID).job_id == job


@pytest.mark.parametrize("other", ["bundle_digest", "settings_digest"])
def test_a_workitem_does_not_get_results_of_another_model_or_other_settings(node, other) -> None:
    client, opened, performer = node
    before = images(client, opened)
    analysed(opened, before, report.build(analysis(1), CONTEXT), {"pacs": ["sr"]}, **{other: "0" * 64})
    client.post(f"{ROOT}?{UID}", json=workitem(STUDY, SERIES))
    for _ in range(3):
        performer.once()
    assert state(client) == "IN PROGRESS"
    again = next(job for job in opened.jobs.list() if job.revision == 2)
    assert (again.predecessor_id, opened.jobs.get(before).state) == (before, JobState.ANALYSED), (
        "what was delivered is left alone"
    )
    analysed(opened, again.job_id, report.build(analysis(1), CONTEXT))
    performer.once()
    assert state(client) == "COMPLETED"
    assert len(opened.jobs.list()) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"codes": ("L:OTHER",)},
        {"InputReadinessState": attribute("CS", "INCOMPLETE")},
        {"ScheduledProcedureStepStartDateTime": attribute("DT", "29990101")},
        {"ScheduledStationNameCodeSequence": attribute("SQ", ups.code("OTHER", "L", "Other"))},
    ],
)
def test_a_workitem_that_is_not_for_this_node_now_is_not_claimed(node, changes) -> None:
    client, opened, performer = node
    images(client, opened)
    assert client.post(f"{ROOT}?{UID}", json=workitem(STUDY, SERIES, **changes)).status_code == 201
    performer.once()
    assert state(client) == "SCHEDULED"


def test_a_failed_analysis_cancels_the_workitem_with_its_reason(node) -> None:
    client, opened, performer = node
    job = images(client, opened)
    client.post(f"{ROOT}?{UID}", json=workitem(STUDY, SERIES))
    claim = ready(opened, job)
    for _ in range(3):
        performer.once()
    assert progress(client, "ProcedureStepProgressDescription") == "analysing"
    opened.jobs.fail(claim, "The slices are 12.0 mm apart.")
    performer.once()
    assert (state(client), code(client)) == ("CANCELED", "110501")
    assert progress(client, "ReasonForCancellation") == "The slices are 12.0 mm apart."


def unrouted(client, opened):
    """Store a series that no route selects; return its job."""
    job = images(client, opened)
    ReceivedSeries(opened.engine).complete_due(Completion(), lambda _: "no route", now=datetime.now(UTC) + timedelta(hours=1))
    assert opened.jobs.get(job).state is JobState.SKIPPED
    return job


def test_an_analysis_that_a_workitem_started_is_canceled_on_request(node) -> None:
    client, opened, performer = node
    job = unrouted(client, opened)
    client.post(f"{ROOT}?{UID}", json=workitem(STUDY, SERIES))
    for _ in range(2):
        performer.once()
    assert opened.jobs.get(job).state is JobState.READY
    wish = {ups.tag("ReasonForCancellation"): attribute("LT", "ordered twice")}
    assert client.post(f"{ROOT}/{UID}/cancelrequest", json=wish).status_code == 202
    assert state(client) == "IN PROGRESS"
    performer.once()
    assert (state(client), code(client), progress(client, "ReasonForCancellation")) == ("CANCELED", "110513", "ordered twice")
    assert (opened.jobs.get(job).state, opened.jobs.get(job).reason) == (
        JobState.FAILED,
        "cancelled by the requester of its workitem",
    )


def test_a_job_of_a_route_continues_after_its_workitem_is_canceled(node) -> None:
    client, opened, performer = node
    job = images(client, opened)
    client.post(f"{ROOT}?{UID}", json=workitem(STUDY, SERIES))
    ready(opened, job)
    for _ in range(2):
        performer.once()
    assert opened.worklist.get(UID).job_id == job
    client.post(f"{ROOT}/{UID}/cancelrequest")
    performer.once()
    assert state(client) == "CANCELED"
    assert opened.jobs.get(job).state is JobState.RUNNING


def test_a_job_continues_until_its_last_workitem_is_canceled(node) -> None:
    client, opened, performer = node
    job = unrouted(client, opened)
    for uid in (UID, "1.2.3.4"):
        client.post(f"{ROOT}?{uid}", json=workitem(STUDY, SERIES))
    for _ in range(2):
        performer.once()
    client.post(f"{ROOT}/{UID}/cancelrequest")
    performer.once()
    assert (state(client), state(client, "1.2.3.4")) == ("CANCELED", "IN PROGRESS")
    assert opened.jobs.get(job).state is JobState.READY
    client.post(f"{ROOT}/1.2.3.4/cancelrequest")
    performer.once()
    assert opened.jobs.get(job).state is JobState.FAILED


def test_a_series_that_no_route_selects_is_analysed_for_a_workitem(node) -> None:
    client, opened, performer = node
    job = unrouted(client, opened)
    client.post(f"{ROOT}?{UID}", json=workitem(STUDY, SERIES))
    for _ in range(2):
        performer.once()
    assert opened.jobs.get(job).state is JobState.READY


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "no archive is configured"),
        ({"InputInformationSequence": {"vr": "SQ"}}, "exactly one series"),
        ({"url": "http://127.0.0.1:9/dicom-web/studies/1"}, "no configured archive has"),
    ],
)
def test_a_workitem_without_available_input_is_canceled(node, changes, words) -> None:
    client, _, performer = node
    client.post(f"{ROOT}?{UID}", json=workitem(STUDY, SERIES, **changes))
    for _ in range(2):
        performer.once()
    assert (state(client), code(client)) == ("CANCELED", "110523")
    assert words in progress(client, "ReasonForCancellation")


def test_the_input_is_fetched_from_a_configured_archive(tmp_path) -> None:
    """The archive is another node, over a real connection and with a token."""
    token = WebToken(name="NODE", roles=("read", "send"), sha256=sha256(TOKEN.encode()).hexdigest())
    (tmp_path / "token").write_text(TOKEN)
    with server(tmp_path / "archive", web=Web(tokens=(token,))) as (url, there):
        import httpx

        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            assert stow(client, *(part10(ct(n)) for n in (1, 2, 3))).status_code == 200
        wait_for(lambda: len(there.catalogue.instances()) == 3)
        archives = (ArchiveDicomweb(name="PACS", url=f"{url}/dicom-web", token_file=tmp_path / "token"),)
        with service(tmp_path / "node", **BY_HAND, archives=archives) as (client, opened):
            performer = Performer(opened)
            place = f"{url}/dicom-web/studies/{STUDY}/series/{SERIES}"
            client.post(f"{ROOT}?{UID}", json=workitem(STUDY, SERIES, url=place))
            wait_for(lambda: performer.once() or opened.worklist.get(UID).job_id)
            assert len(opened.catalogue.instances()) == 3
            (job,) = opened.jobs.list()
            assert (opened.worklist.get(UID).job_id, opened.worklist.get(UID).attempts) == (job.job_id, 1)
            performer.close()


def test_a_fetch_is_retried_as_often_as_the_settings_allow(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("alnnode.worklist.input_fetcher.FETCH_PAUSE", 0.0)
    with server(tmp_path / "archive") as (url, _):
        archives = (ArchiveDicomweb(name="PACS", url=f"{url}/dicom-web"),)
        with service(tmp_path / "node", **BY_HAND, archives=archives) as (client, opened):
            performer = Performer(opened)
            client.post(f"{ROOT}?{UID}", json=workitem(STUDY, SERIES))
            wait_for(lambda: performer.once() or opened.worklist.get(UID).state is UpsState.CANCELED)
            assert opened.worklist.get(UID).attempts == 2
            assert "could not be fetched" in progress(client, "ReasonForCancellation")
            performer.close()


def test_event_reports_are_sent_over_a_real_connection_and_wait_without_one(tmp_path) -> None:
    import httpx
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    token = WebToken(name="WATCHER", roles=("read", "send"), sha256=sha256(TOKEN.encode()).hexdigest())
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with server(tmp_path, web=Web(tokens=(token,)), **BY_HAND) as (url, opened), httpx.Client(headers=headers) as client:
        client.base_url = url
        client.post(f"{ROOT}?{UID}", json=workitem(codes=("L:OTHER",)))
        answer = client.post(f"{ROOT}/{UID}/subscribers/WATCHER")
        channel = answer.headers["content-location"]
        with pytest.raises(InvalidStatus, match="403"):
            connect(channel)
        with connect(channel, additional_headers=headers) as socket:
            assert ups.value(json.loads(socket.recv(20)), ups.STATE) == "SCHEDULED"
            socket.send("a message without a meaning")
            opened.worklist.change_state(UID, StateChange(UpsState.IN_PROGRESS, TRANSACTION))
            assert ups.value(json.loads(socket.recv(20)), ups.STATE) == "IN PROGRESS"
        opened.worklist.update(UID, TRANSACTION, performed())
        opened.worklist.change_state(UID, StateChange(UpsState.COMPLETED, TRANSACTION))
        with connect(channel, additional_headers=headers) as socket, connect(channel, additional_headers=headers) as second:
            assert receive_until(socket, ups.STATE, "COMPLETED") <= {"IN PROGRESS"}
            client.post(f"{ROOT}?1.2.9", json=workitem(codes=("L:OTHER",)))
            client.post(f"{ROOT}/1.2.9/subscribers/WATCHER")
            assert receive_until(socket, "00001000", "1.2.9") <= {UID}
            assert receive_until(second, "00001000", "1.2.9") <= {UID}


def receive_until(socket, tag: str, expected: str) -> set[str]:
    """Return the other values that came before: a report is sent again when a subscriber disconnects just after it received it."""
    earlier = set()
    while (found := ups.value(json.loads(socket.recv(20)), tag)) != expected:
        earlier.add(found)
    return earlier


def refused(call, *arguments, **options):
    with pytest.raises(WorkitemRefused) as caught:
        call(*arguments, **options)
    return caught.value.status


def test_the_state_transitions_on_both_databases(engine, tmp_path) -> None:
    worklist, subscriptions = Worklist(engine, Spool(tmp_path / "spool")), Subscriptions(engine)
    read = worklist.documents.read
    conditions = {"00100020": attribute("LO", "SECRET-ID")}
    for conditions_of, kind in ((None, GLOBAL), (conditions, FILTERED)):
        only = None if conditions_of is None else Filter(conditions_of, worklist.documents.write(conditions_of))
        subscriptions.subscribe_globally("WATCHER", lock=True, only=only, read=read)
        assert subscriptions.suspend(kind, "NOBODY") is None
    assert worklist.create(UID, workitem(), f"http://node/{'long' * 100}")
    assert worklist.get(UID).service_url.endswith("long" * 100)
    assert refused(worklist.create, UID, workitem(), "http://node") == UpsStatus.DUPLICATE
    assert refused(worklist.change_state, "1.2", StateChange(UpsState.IN_PROGRESS, TRANSACTION)) == UpsStatus.NO_SUCH_WORKITEM
    worklist.change_state(UID, StateChange(UpsState.IN_PROGRESS, TRANSACTION))
    assert refused(worklist.change_state, UID, StateChange(UpsState.IN_PROGRESS, "1.2")) == UpsStatus.ALREADY_IN_PROGRESS
    assert refused(worklist.change_state, UID, StateChange(UpsState.COMPLETED, TRANSACTION)) == UpsStatus.FINAL_STATE_NOT_MET
    worklist.update(UID, TRANSACTION, performed())
    worklist.change_state(UID, StateChange(UpsState.COMPLETED, TRANSACTION))
    assert worklist.change_state(UID, StateChange(UpsState.COMPLETED, TRANSACTION)) is UpsStatus.ALREADY_COMPLETED
    reports = EventReports(engine)
    found = reports.after("WATCHER", reports.before_first_unsent("WATCHER"))
    assert [event.state for event in found] == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
    assert [item.state for item in worklist.each(UpsState.COMPLETED)] == [UpsState.COMPLETED]
    later = datetime.now(UTC) + timedelta(days=2)
    assert worklist.delete_ended(later) == 0, "WATCHER holds a deletion lock"
    assert subscriptions.unsubscribe(FILTERED, "WATCHER") == (only.path,)
    assert worklist.delete_ended(later) == 1
    assert refused(worklist.get, UID) == UpsStatus.DELETED
    reports.delete_old(later)
    assert reports.after("WATCHER", 0) == ()
