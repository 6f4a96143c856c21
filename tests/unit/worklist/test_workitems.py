"""UPS-RS: the required attributes of a workitem, who may change it, and its state transitions (PS3.4 Annex CC, PS3.18 chapter 11)."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import uuid4

import pytest
from starlette.websockets import WebSocketDisconnect
from web_service import service
from workitem import TRANSACTION, action, attribute, performed, reason, workitem

from alnnode.settings import Web, WebToken
from alnnode.worklist import ups
from alnnode.worklist.ups import FILTERED, GLOBAL, parse_date_time

ROOT = "/dicom-web/workitems"
UID = "1.2.826.0.1.3680043.10.9.1"
CHANNEL = "ws://127.0.0.1:8124/dicom-web/subscribers"
OTHER = ("L:OTHER",)  # a code that this node does not perform


@pytest.fixture
def client(tmp_path):
    with service(tmp_path) as (client, opened):
        client.opened = opened
        yield client


def create(client, uid=UID, **changes):
    return client.post(f"{ROOT}?workitem={uid}", json=[workitem(codes=OTHER, **changes)])


def put(client, state, transaction=TRANSACTION, uid=UID):
    return client.put(f"{ROOT}/{uid}/state", json=action(state, transaction))


def get(client, uid=UID):
    (document,) = client.get(f"{ROOT}/{uid}").json()
    return document


def state(client, uid=UID):
    return ups.value(get(client, uid), ups.STATE)


def test_a_new_workitem_gets_the_attributes_that_the_requester_omits(client) -> None:
    answer = create(client)
    assert (answer.status_code, answer.headers["location"]) == (201, f"http://127.0.0.1:8124{ROOT}/{UID}")
    assert answer.headers["warning"] == "299 alnnode: The Workitem was created with modifications."
    document = get(client)
    assert ups.value(document, ups.SOP_CLASS) == ups.PUSH_SOP_CLASS
    assert ups.value(document, ups.SOP_INSTANCE) == UID
    assert ups.value(document, ups.LABEL) == "DEFAULT"
    assert document[ups.PERFORMED] == {"vr": "SQ"}
    assert parse_date_time(ups.value(document, ups.MODIFIED)) - datetime.now(UTC) < timedelta(minutes=1)
    assert ups.TRANSACTION not in document


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ProcedureStepState": attribute("CS", "IN PROGRESS")}, "SCHEDULED"),
        ({"ProcedureStepLabel": None}, "ProcedureStepLabel"),
        ({"ScheduledProcedureStepPriority": attribute("CS", "SOON")}, "HIGH, MEDIUM, LOW"),
        ({"InputReadinessState": None}, "InputReadinessState"),
        ({"ScheduledProcedureStepStartDateTime": attribute("DT", "soon")}, "not a valid date"),
        ({"TransactionUID": attribute("UI", "1.2.3")}, "TransactionUID"),
        ({"ProcedureStepProgressInformationSequence": attribute("SQ", {})}, "ProcedureStepProgressInformationSequence"),
    ],
)
def test_a_new_workitem_with_missing_or_invalid_attributes_is_refused(client, changes, named) -> None:
    answer = create(client, **changes)
    assert (answer.status_code, client.get(f"{ROOT}/{UID}").status_code) == (400, 404)
    assert named in answer.headers["warning"]


def test_bodies_that_are_not_one_data_set_are_refused(client) -> None:
    def post(content, kind="application/dicom+json"):
        return client.post(ROOT, content=content, headers={"Content-Type": kind}).status_code

    assert [
        post(content) for content in (b"", b"{", b"[]", b"[{},{}]", b'[{"x":1}]', b'{"00741000":{"vr":"CS","Value":{}}}')
    ] == [400] * 6
    assert post(b"<xml/>", "application/dicom+xml") == 415
    assert post(b" " * (2 << 20)) == 413
    assert client.post(f"{ROOT}?workitem=x", json=workitem()).status_code == 400
    assert client.post(f"{ROOT}?workitem={GLOBAL}", json=workitem()).status_code == 400
    assert client.get(f"{ROOT}/x").status_code == 400


def test_the_uid_is_in_the_url_or_in_the_data_set_or_is_generated(client) -> None:
    assert client.post(f"{ROOT}?1.2.7", json=workitem(codes=OTHER)).headers["location"].endswith("/1.2.7")
    document = workitem(codes=OTHER, SOPInstanceUID=attribute("UI", "1.2.8"))
    assert client.post(ROOT, json=document).headers["location"].endswith("/1.2.8")
    assert "/2.25." in client.post(ROOT, json=workitem(codes=OTHER)).headers["location"]
    assert client.post(ROOT, json=document).status_code == 409


def test_only_the_performer_that_claimed_a_workitem_ends_it(client) -> None:
    create(client)
    assert [put(client, end).status_code for end in ("COMPLETED", "CANCELED")] == [409, 409], "not yet IN PROGRESS"
    missing = put(client, "IN PROGRESS", None)
    assert (missing.status_code, missing.headers["warning"]) == (400, "299 alnnode: The Transaction UID is missing.")
    assert put(client, "IN PROGRESS").status_code == 200
    assert put(client, "IN PROGRESS", "1.2.3").status_code == 409
    assert put(client, "SCHEDULED").status_code == 409
    assert TRANSACTION not in client.get(f"{ROOT}/{UID}").text, (
        "a client that can read the Transaction UID could change the workitem"
    )
    assert TRANSACTION not in client.get(ROOT).text
    wrong = put(client, "COMPLETED", "1.2.3")
    assert (wrong.status_code, wrong.headers["warning"]) == (400, "299 alnnode: The Transaction UID is incorrect.")
    assert state(client) == "IN PROGRESS"


def test_a_workitem_is_completed_only_with_the_final_state_requirements(client) -> None:
    create(client)
    put(client, "IN PROGRESS")
    early = put(client, "COMPLETED")
    assert (early.status_code, "final state requirements" in early.headers["warning"]) == (409, True)
    url = f"{ROOT}/{UID}?transaction-uid={TRANSACTION}"
    assert client.post(url, json=performed(output=False)).status_code == 200
    assert "OutputInformationSequence" in put(client, "COMPLETED").headers["warning"]
    assert client.post(url, json=performed()).status_code == 200
    assert put(client, "COMPLETED").status_code == 200
    again = put(client, "COMPLETED")
    assert (again.status_code, again.headers["warning"]) == (
        200,
        "299 alnnode: The UPS is already in the requested state of COMPLETED.",
    )
    assert put(client, "CANCELED").status_code == 409
    assert client.post(url, json=performed()).status_code == 400, "PS3.18 Table 11.6.3-1"
    refused = client.post(f"{ROOT}/{UID}/cancelrequest")
    assert (refused.status_code, refused.headers["warning"]) == (409, "299 alnnode: The UPS is already COMPLETED.")


def test_a_workitem_is_canceled_with_a_reason(client) -> None:
    create(client)
    put(client, "IN PROGRESS")
    assert put(client, "CANCELED").status_code == 409
    assert client.post(f"{ROOT}/{UID}?{TRANSACTION}", json=reason()).status_code == 200
    assert put(client, "CANCELED").status_code == 200
    (progress,) = ups.items(get(client), ups.PROGRESS)
    assert parse_date_time(ups.value(progress, ups.tag("ProcedureStepCancellationDateTime"))) is not None
    assert put(client, "CANCELED").headers["warning"] == "299 alnnode: The UPS is already in the requested state of CANCELED."


def test_updates_need_the_transaction_uid_after_the_claim(client) -> None:
    create(client)
    label = {ups.tag("ProcedureStepLabel"): attribute("LO", "Another")}
    assert client.post(f"{ROOT}/{UID}", json=label).status_code == 200
    assert ups.value(get(client), ups.tag("ProcedureStepLabel")) == "Another"
    assert client.post(f"{ROOT}/{UID}?transaction-uid=1.2.3", json=label).status_code == 409, "nobody claimed it"
    put(client, "IN PROGRESS")
    assert client.post(f"{ROOT}/{UID}", json=label).status_code == 400
    assert client.post(f"{ROOT}/{UID}?transaction-uid=1.2.3", json=label).status_code == 400
    assert client.post(f"{ROOT}/{UID}", json={**label, ups.TRANSACTION: attribute("UI", TRANSACTION)}).status_code == 200
    for fixed in ({"00100020": attribute("LO", "ANOTHER")}, {ups.STATE: attribute("CS", "COMPLETED")}):
        assert client.post(f"{ROOT}/{UID}?{TRANSACTION}", json=fixed).status_code == 400
    assert TRANSACTION not in client.get(f"{ROOT}/{UID}").text


def test_a_scheduled_workitem_is_canceled_on_request(client) -> None:
    create(client)
    words = {ups.tag("ReasonForCancellation"): attribute("LT", "ordered twice")}
    assert client.post(f"{ROOT}/{UID}/cancelrequest", json=words).status_code == 202
    assert state(client) == "CANCELED"
    assert "ordered twice" in client.get(f"{ROOT}/{UID}").text
    again = client.post(f"{ROOT}/{UID}/cancelrequest")
    assert (again.status_code, again.headers["warning"]) == (
        202,
        "299 alnnode: The UPS is already in the requested state of CANCELED.",
    )


def test_a_cancellation_request_needs_a_subscriber_if_the_performer_is_elsewhere(client) -> None:
    create(client)
    put(client, "IN PROGRESS")
    refused = client.post(f"{ROOT}/{UID}/cancelrequest")
    assert (refused.status_code, refused.headers["warning"]) == (409, "299 alnnode: The performer cannot be contacted.")
    assert client.post(f"{ROOT}/{UID}/subscribers/PERFORMER").status_code == 201
    assert client.post(f"{ROOT}/{UID}/cancelrequest").status_code == 202
    assert state(client) == "IN PROGRESS", "the performer decides"
    with client.websocket_connect(f"{CHANNEL}/PERFORMER") as channel:
        assert [ups.value(channel.receive_json(), "00001002") for _ in range(2)] == ["1", "2"]


def test_search_matches_and_pages(client) -> None:
    for number in range(5):
        label = attribute("LO", f"step {number}")
        create(client, f"1.2.9.{number}", ProcedureStepLabel=label, PatientID=attribute("LO", f"P{number % 2}"))

    def found(**query):
        return [ups.value(document, ups.tag("ProcedureStepLabel")) for document in client.get(ROOT, params=query).json()]

    assert found() == [f"step {number}" for number in (4, 3, 2, 1, 0)]
    assert found(PatientID="P1") == ["step 3", "step 1"]
    assert found(ProcedureStepState="SCHEDULED", limit=2, offset=1) == ["step 3", "step 2"]
    assert "additional results" in client.get(ROOT, params={"limit": 2}).headers["warning"]
    assert found(**{"00404018.00080100": "OTHER"}) == found()
    assert found(**{"00404018.00080100": "110004"}) == []
    assert found(ScheduledProcedureStepStartDateTime="20260101-20260102") == found()
    assert client.get(ROOT, params={"NoSuchKeyword": 1}).status_code == 400
    assert client.get(ROOT, headers={"Accept": "application/dicom+xml"}).status_code == 406


def events(channel, count):
    return [channel.receive_json() for _ in range(count)]


def test_subscribers_receive_a_report_of_every_change(client) -> None:
    assert client.post(f"{ROOT}/{UID}/subscribers/WATCHER").status_code == 404
    create(client)
    answer = client.post(f"{ROOT}/{UID}/subscribers/WATCHER")
    assert (answer.status_code, answer.headers["content-location"]) == (
        201,
        "ws://127.0.0.1:8124/dicom-web/subscribers/WATCHER",
    )
    put(client, "IN PROGRESS")
    with client.websocket_connect(f"{CHANNEL}/WATCHER") as channel:
        early = events(channel, 2)
        client.post(f"{ROOT}/{UID}?{TRANSACTION}", json=reason())
        put(client, "CANCELED")
        late = events(channel, 2)
    assert [ups.value(event, ups.STATE) for event in early] == ["SCHEDULED", "IN PROGRESS"]
    assert [ups.value(event, "00001002") for event in late] == ["3", "1"]
    assert ups.value(late[1], ups.STATE) == "CANCELED"
    assert {ups.value(event, "00001000") for event in early + late} == {UID}
    assert ups.tag("ProcedureStepDiscontinuationReasonCodeSequence") in late[1]
    assert client.delete(f"{ROOT}/{UID}/subscribers/WATCHER").status_code == 200
    assert client.delete(f"{ROOT}/{UID}/subscribers/WATCHER").status_code == 404


def subscribed(client):
    """Workitems whose event reports WATCHER receives now."""
    marker = f"1.2.8.{uuid4().int}"
    create(client, marker)
    client.post(f"{ROOT}/{marker}/subscribers/WATCHER")  # its report shows that all reports before it were received
    heard = []
    with client.websocket_connect(f"{CHANNEL}/WATCHER") as channel:
        while marker not in heard:
            heard.append(ups.value(channel.receive_json(), "00001000"))
    return [uid for uid in heard if not uid.startswith("1.2.8.")]


def test_a_global_subscription_includes_new_workitems_until_it_is_suspended(client) -> None:
    create(client, "1.2.9.1")
    assert client.post(f"{ROOT}/{GLOBAL}/subscribers/WATCHER").status_code == 201
    create(client, "1.2.9.2")
    assert subscribed(client) == ["1.2.9.1", "1.2.9.2"]
    assert client.post(f"{ROOT}/{GLOBAL}/subscribers/WATCHER/suspend").status_code == 200
    create(client, "1.2.9.3")
    put(client, "IN PROGRESS", uid="1.2.9.2")
    assert subscribed(client) == ["1.2.9.2"]
    assert client.post(f"{ROOT}/1.2.9.2/subscribers/WATCHER/suspend").status_code == 400
    assert client.delete(f"{ROOT}/{GLOBAL}/subscribers/WATCHER").status_code == 404, "it was suspended"


def test_a_filtered_subscription_includes_workitems_that_match(client) -> None:
    create(client, "1.2.9.3")
    assert client.post(f"{ROOT}/{FILTERED}/subscribers/WATCHER").status_code == 400
    assert client.post(f"{ROOT}/{FILTERED}/subscribers/WATCHER?filter=NoSuchKeyword=1").status_code == 400
    assert client.post(f"{ROOT}/{FILTERED}/subscribers/WATCHER?filter=PatientID=P1,PatientName=SECRET^NAME").status_code == 201
    create(client, "1.2.9.1", PatientID=attribute("LO", "P1"))
    create(client, "1.2.9.2", PatientID=attribute("LO", "P2"))
    assert subscribed(client) == ["1.2.9.1"]
    for path in client.opened.spool.root.parent.glob("alnnode.db*"):
        assert b"SECRET" not in path.read_bytes()
    assert client.delete(f"{ROOT}/{FILTERED}/subscribers/WATCHER").status_code == 200
    assert len(list((client.opened.spool.root / "worklist").rglob("*.json"))) == 4, "only the file of the conditions is deleted"


def test_ended_workitems_are_deleted_unless_a_subscription_locks_them(client) -> None:
    for uid, lock in (("1.2.9.1", "true"), ("1.2.9.2", "false")):
        create(client, uid)
        client.post(f"{ROOT}/{uid}/subscribers/WATCHER?deletionlock={lock}")
        client.post(f"{ROOT}/{uid}/cancelrequest")
    create(client, "1.2.9.3")
    later = datetime.now(UTC) + timedelta(days=1)
    assert client.opened.worklist.delete_ended(later) == 1
    assert [client.get(f"{ROOT}/1.2.9.{n}").status_code for n in (1, 2, 3)] == [200, 410, 200]
    client.delete(f"{ROOT}/1.2.9.1/subscribers/WATCHER")
    assert client.opened.worklist.delete_ended(later) == 1
    assert len(list((client.opened.spool.root / "worklist").rglob("*.json"))) == 1


def test_the_worklist_survives_a_restart(tmp_path) -> None:
    with service(tmp_path) as (client, _):
        create(client)
        put(client, "IN PROGRESS")
        client.post(f"{ROOT}/{UID}/subscribers/WATCHER")
    with service(tmp_path) as (client, _):
        assert state(client) == "IN PROGRESS"
        assert client.post(f"{ROOT}/{UID}?{TRANSACTION}", json=performed()).status_code == 200
        assert put(client, "COMPLETED").status_code == 200
        with client.websocket_connect(f"{CHANNEL}/WATCHER") as channel:
            assert [ups.value(event, ups.STATE) for event in events(channel, 2)] == ["IN PROGRESS", "COMPLETED"]


def test_requests_from_pages_of_other_sites_are_refused(client) -> None:
    create(client)
    foreign = {"Origin": "http://evil.example"}
    assert client.post(f"{ROOT}/{UID}/cancelrequest", headers=foreign).status_code == 403
    assert client.post(f"{ROOT}/{UID}/subscribers/WATCHER", headers=foreign).status_code == 403
    assert state(client) == "SCHEDULED"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"{CHANNEL}/WATCHER", headers=foreign):
        pass
    assert client.post(f"{ROOT}/{UID}/cancelrequest", headers={"Origin": "http://127.0.0.1:8124"}).status_code == 202


def test_roles_of_the_worklist(tmp_path) -> None:
    tokens = tuple(WebToken(name=role, roles=(role,), sha256=sha256(role.encode()).hexdigest()) for role in ("read", "send"))
    with service(tmp_path, web=Web(tokens=tokens)) as (client, _):

        def ask(method, path, role, **body):
            return client.request(method, f"{ROOT}{path}", headers={"Authorization": f"Bearer {role}"}, **body).status_code

        assert [ask("POST", f"?{UID}", role, json=workitem()) for role in ("read", "send")] == [403, 201]
        assert [ask("GET", f"/{UID}", role) for role in ("read", "send")] == [200, 403]
        assert [ask("PUT", f"/{UID}/state", role, json=action("SCHEDULED")) for role in ("read", "send")] == [403, 409]
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer send"}):
            with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"{CHANNEL}/A", headers=headers):
                pass


@pytest.mark.parametrize(
    ("spelt", "utc"),
    [
        ("20260228235960.5+0100", "2026-02-28T22:59:59+00:00"),
        ("2026", None),
        ("20261301", ""),
        ("20260101120000-0500", "2026-01-01T17:00:00+00:00"),
        ("yesterday", ""),
    ],
)
def test_dates_and_times(spelt, utc) -> None:
    found = parse_date_time(spelt)
    if utc == "":
        assert found is None
    elif utc is None:
        assert found.tzinfo is not None
    else:
        assert found.astimezone(UTC).isoformat() == utc
