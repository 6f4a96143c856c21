"""The audit trail of real parts of the node: who sent, fetched, searched, logged in and was refused, at a repository of our own."""

import getpass
import hashlib
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import dicom_objects
import httpx
import pytest
from audits import tls_repository, udp_repository
from certificates import Authority
from listening import Listener, free_port, wait_for
from lxml import etree
from stages import TERMS
from typer.testing import CliRunner
from web_service import body, content_type, part10, server

from alnnode.audit import sender as senders
from alnnode.audit.sender import AuditSender
from alnnode.cli import check
from alnnode.cli.app import app
from alnnode.db import schema
from alnnode.http.rate_limits import MAX_WRONG_TOKENS
from alnnode.node.sweep import Sweep
from alnnode.receive.acceptor import StoreRequest
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import JobState
from alnnode.settings import Audit, AuditTls, AuditUdp, ClientTls, DestinationCStore, Internal, Web, WebToken

SECRET = "a secret of 16 or more"
STUDIES = ("1.2.826.0.1.50", "1.2.826.0.1.51")


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    return Authority(folder / "ours"), Authority(folder / "strange")


def over_tls(authorities, port, **more) -> AuditTls:
    ours, _ = authorities
    own = ours.issue("node.example")
    tls = ClientTls(ca=ours.pem, certificate=own.certificate, private_key=own.key, server_name="audit.example")
    return AuditTls(host="localhost", port=port, tls=tls, **more)


def table(audit: Audit) -> str:
    def lines(keys: dict[str, object]) -> str:
        return "".join(
            f"{key} = {str(value).lower() if isinstance(value, (bool, int)) else repr(value)}\n"
            for key, value in keys.items()
            if not isinstance(value, dict)
        )

    keys = audit.model_dump(mode="json", exclude_none=True)
    return f"[audit]\n{lines(keys)}" + (f"[audit.tls]\n{lines(keys['tls'])}" if "tls" in keys else "")


@contextmanager
def listener(folder, audit, more=""):
    """A listening process, and an audit sender as in the supervisor."""
    url = f"sqlite:///{folder / 'alnnode.db'}"
    schema.migrate(url)
    running = Listener(folder, url, f"{more}\n{table(audit)}")
    running.start()
    sender = AuditSender(running.settings)
    try:
        yield running
    finally:
        running.stop()
        sender.close()


def image(number: int, study: str):
    return dicom_objects.ct(number, series=f"{study}.1", StudyInstanceUID=study, PatientName="DOE^JANE", PatientID="4711")


def test_who_sent_which_study_arrives_over_tls_with_one_message_for_each(tmp_path, authorities) -> None:
    ours, _ = authorities
    with tls_repository(ours.issue("audit.example"), ours) as (repository, port):
        with listener(tmp_path, over_tls(authorities, port, identity=True)) as node:
            association = node.associate(calling="CT1")
            answers = [association.send_c_store(image(n, STUDIES[n % 2])).Status for n in range(1, 6)]
            bad = image(9, STUDIES[0])
            bad.SeriesInstanceUID = "none"
            answers.append(association.send_c_store(bad).Status)
            association.release()
            assert answers == [0, 0, 0, 0, 0, 0xC001]
            first, second = wait_for(lambda: len(found := repository.of("110104")) == 2 and found)
            assert [message.study for message in (first, second)] == [STUDIES[1], STUDIES[0]]
            assert [message.instances for message in (first, second)] == [3, 2]
            assert (first.outcome, first.description, second.outcome) == (4, "1 instance was refused", 0)
            assert first.participants[0] == ("110153", "CT1", "127.0.0.1")
            assert first.requestors == ["CT1"]
            assert first.objects["2"].get("ParticipantObjectID") == "4711"
            assert not node.associate(called="NOBODY").is_established
            (alert,) = wait_for(lambda: repository.of("110113"))
            assert alert.types == ["110126"]
            assert alert.description == "called AE title not recognized"
            # An association that is cut off is written too.
            cut = node.associate(calling="CT2")
            assert cut.send_c_store(image(20, STUDIES[0])).Status == 0
            cut.abort()
            last = wait_for(lambda: len(found := repository.of("110104")) == 3 and found)[-1]
            assert (last.participants[0][1], last.instances) == ("CT2", 1)
        assert b"DOE^JANE" not in (tmp_path / "log").read_bytes()


def test_peers_that_are_not_let_in_are_alerts(tmp_path, authorities) -> None:
    ours, _ = authorities
    node = ours.issue("node.example")
    more = f'[listener.tls]\ncertificate = "{node.certificate}"\nprivate_key = "{node.key}"\nca = "{ours.pem}"\n'
    with udp_repository() as (repository, port):
        with listener(tmp_path, AuditUdp(host="127.0.0.1", port=port), more) as running:
            assert not running.associate().is_established
            (alert,) = wait_for(lambda: repository.of("110113"))
            assert alert.description.startswith("TLS: ")
            assert alert.participants[1][2] == "127.0.0.1"
            assert alert.outcome == 8
            assert not running.associate().is_established
        assert len(repository.of("110113")) == 1, "one line a minute for the same peer and the same reason"


def test_a_repository_that_is_away_or_false_gets_everything_later_and_nobody_waits(tmp_path, authorities, monkeypatch) -> None:
    monkeypatch.setattr(senders, "FIRST_WAIT", 0.2)
    monkeypatch.setattr(senders, "LAST_WAIT", 0.4)
    ours, strange = authorities
    port = free_port()
    with listener(tmp_path, over_tls(authorities, port)) as node:

        def send(number: int) -> None:
            association = node.associate(calling=f"CT{number}")
            assert association.send_c_store(image(number, f"1.2.826.0.1.6{number}")).Status == 0
            association.release()
            assert association.is_released, "neither response waits for the repository, which is away"

        folder = node.settings.node.data_dir / "audit"
        send(1)
        wait_for(lambda: len(list(folder.glob("*.xml"))) == 1)
        with tls_repository(strange.issue("audit.example"), strange, port) as (false, _):
            send(2)
            time.sleep(1)  # two tries, which must all fail
            assert not false.messages
        with tls_repository(ours.issue("audit.example"), ours, port) as (right, _):
            wait_for(lambda: len(right.messages) == 2)
        send(3)
        with tls_repository(ours.issue("audit.example"), ours, port) as (again, _):
            wait_for(lambda: again.messages or len(right.messages) == 3)
        assert [message.participants[0][1] for message in [*right.messages, *again.messages]] == ["CT1", "CT2", "CT3"]


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    tokens = [("READER", ["read"], SECRET), ("SENDER", ["send"], SECRET * 2)]
    access = [WebToken(name=name, roles=roles, sha256=hashlib.sha256(key.encode()).hexdigest()) for name, roles, key in tokens]
    with udp_repository() as (repository, port):
        audit = AuditUdp(host="127.0.0.1", port=port)
        with server(folder, web=Web(tokens=access), audit=audit) as (url, opened):
            sender = AuditSender(opened.settings)
            yield url, opened, repository
            sender.close()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def told(repository, event: str, count: int = 1):
    return wait_for(lambda: len(found := repository.of(event)) >= count and found)


def test_who_sent_searched_and_fetched_over_http(web) -> None:
    url, opened, repository = web
    root = f"{url}/dicom-web"
    files = [part10(image(n, STUDIES[0])) for n in (1, 2)]
    sent = httpx.post(f"{root}/studies", content=body(*files, b"none"), headers={**content_type(), **bearer(SECRET * 2)})
    assert sent.status_code == 202
    (received,) = told(repository, "110104")
    assert (received.participants[0][1], received.study, received.instances, received.outcome) == ("SENDER", STUDIES[0], 2, 4)

    wait_for(lambda: opened.catalogue.instances([STUDIES[0]]))
    search = httpx.get(f"{root}/studies?PatientName=DOE*&PatientID=4711&limit=3", headers=bearer(SECRET))
    assert len(search.json()) == 1
    (query,) = told(repository, "110112")
    assert query.query == "/dicom-web/studies?PatientName=&PatientID=&limit="
    assert query.requestors == ["READER"]
    assert httpx.get(f"{root}/studies?DOE=4711", headers=bearer(SECRET)).status_code == 400
    assert (told(repository, "110112", 2)[1].query, repository.of("110112")[1].outcome) == ("/dicom-web/studies", 4)

    study = f"{root}/studies/{STUDIES[0]}"
    for path in ("", "/series/1.2.826.0.1.50.1", "/series/1.2.826.0.1.50.1"):
        assert httpx.get(study + path, headers=bearer(SECRET)).status_code == 200
    assert httpx.get(f"{study}/metadata", headers=bearer(SECRET)).status_code == 200
    assert httpx.get(f"{root}/studies/1.2.3.4", headers=bearer(SECRET)).status_code == 404
    (accessed,) = told(repository, "110103")
    fetched = told(repository, "110104", 2)[1:]
    assert len(fetched) == 1, "a viewer that asks many times is one access"
    for message in (accessed, *fetched):
        assert (message.study, message.action, message.requestors) == (STUDIES[0], "R", ["READER"])
        assert message.participants[1][2] == "127.0.0.1"
    assert b"DOE" not in b"".join(etree.tostring(message.root) for message in repository.messages)


def test_who_logged_in_and_who_was_refused_over_http(web) -> None:
    url, opened, repository = web
    root = f"{url}/dicom-web"
    assert httpx.get(f"{root}/studies", headers=bearer(SECRET * 2)).status_code == 403
    (alert,) = told(repository, "110113")
    assert (alert.types, alert.participants[1][1]) == (["110132"], "SENDER")
    assert httpx.get(f"{root}/studies").status_code == 401  # a client that asks whether a token is needed is no failure
    with httpx.Client(base_url=url) as browser:
        assert browser.post("/login", data={"token": "wrong"}).status_code == 403
        assert browser.post("/login", data={"token": SECRET}).status_code == 303
        page = browser.get("/").text
        csrf = page.split('name="csrf" value="')[1].split('"')[0]
        assert browser.post("/logout", data={"csrf": csrf}).status_code == 303
    failed, entered, left = told(repository, "110114", 3)
    assert [message.types[0] for message in (failed, entered, left)] == ["110122", "110122", "110123"]
    assert [message.outcome for message in (failed, entered, left)] == [4, 0, 0]
    assert [message.participants[0][1] for message in (failed, entered, left)] == ["unknown", "READER", "READER"]
    for _ in range(MAX_WRONG_TOKENS + 3):
        answer = httpx.get(f"{root}/studies", headers=bearer("wrong"))
    assert answer.status_code == 429
    wait_for(lambda: repository.of("110114")[-1].outcome == 8)
    opened.trail.close()
    assert [message.outcome for message in repository.of("110114")].count(8) == 1
    metrics = httpx.get(f"{url}/metrics", headers=bearer(SECRET))
    assert metrics.status_code in {200, 429}


def test_who_retried_and_cancelled_a_job(tmp_path) -> None:
    access = [WebToken(name="ADMIN", roles=["read", "admin"], sha256=hashlib.sha256(SECRET.encode()).hexdigest())]
    with (
        udp_repository() as (repository, port),
        server(tmp_path, web=Web(tokens=access), audit=AuditUdp(host="127.0.0.1", port=port)) as (url, opened),
    ):
        sender = AuditSender(opened.settings)
        opened.acceptor.store(dicom_objects.data_set(image(1, STUDIES[0])), StoreRequest("1.2.840.10008.1.2.1", "CT1"))
        (job,) = wait_for(opened.jobs.list)
        ReceivedSeries(opened.engine).complete_due(
            opened.settings.completion, lambda _: None, datetime.now(UTC) + timedelta(days=1)
        )
        with httpx.Client(base_url=url) as browser:
            assert browser.post("/login", data={"token": SECRET}).status_code == 303
            csrf = browser.get("/").text.split('name="csrf" value="')[1].split('"')[0]
            for action, status in (("cancel", 303), ("cancel", 409), ("retry", 303)):
                assert browser.post(f"/jobs/{job.job_id}/{action}", data={"csrf": csrf}).status_code == status
        config = tmp_path / "cli.toml"
        config.write_text(f'[node]\ndata_dir = "{tmp_path}"\n[audit]\nkind = "udp"\nhost = "127.0.0.1"\nport = {port}\n')
        assert CliRunner().invoke(app, ["retry", job.job_id, "--config", str(config)]).exit_code == 0
        cancelled, retried, typed = told(repository, "110113", 3)
        opened.trail.close()
        sender.close()
    for message, action in ((cancelled, "cancel"), (retried, "retry"), (typed, "retry")):
        assert (message.types, message.outcome) == (["110132"], 0)
        assert message.description == f"{action} of job {job.job_id}, study {STUDIES[0]}"
    assert [message.participants[1][1] for message in (cancelled, retried, typed)] == ["ADMIN", "ADMIN", getpass.getuser()]


def test_a_client_that_asks_too_often_is_no_alert(tmp_path) -> None:
    """It has a token; the answer 429 to others means that they tried wrong ones."""
    access = [WebToken(name="READER", roles=["read"], sha256=hashlib.sha256(SECRET.encode()).hexdigest())]
    with (
        udp_repository() as (repository, port),
        server(
            tmp_path, web=Web(tokens=access), internal=Internal(web_request_rate=1), audit=AuditUdp(host="127.0.0.1", port=port)
        ) as (
            url,
            opened,
        ),
    ):
        sender = AuditSender(opened.settings)
        answers = {httpx.get(f"{url}/dicom-web/studies", headers=bearer(SECRET)).status_code for _ in range(40)}
        assert 429 in answers
        opened.trail.close()
        told(repository, "110112")
        sender.close()
    assert repository.of("110114") == []


class Nobody:
    """A broker that loses every message."""

    def enqueue_analysis(self, _: str) -> None: ...
    def enqueue_delivery(self, _: str) -> None: ...


def test_what_is_deleted_and_what_was_returned(tmp_path) -> None:
    pacs = DestinationCStore(name="pacs", ae_title="PACS", host="pacs.example", port=104, retry_attempts=3)
    with (
        udp_repository() as (repository, port),
        server(tmp_path, audit=AuditUdp(host="127.0.0.1", port=port, identity=True), destinations=(pacs,)) as (
            _,
            opened,
        ),
    ):
        settings, jobs, spool = opened.settings, opened.jobs, opened.spool
        sender = AuditSender(settings)
        for number in (1, 2):
            opened.acceptor.store(dicom_objects.data_set(image(number, STUDIES[0])), StoreRequest("1.2.840.10008.1.2.1", "CT1"))
        (job,) = wait_for(lambda: [job for job in jobs.list() if job.instances == 2])
        past = datetime.now(UTC) + timedelta(days=1)
        ReceivedSeries(opened.engine).complete_due(settings.completion, lambda _: None, past)
        jobs.analysed(jobs.claim(job.job_id, TERMS, past), [], {}, now=past)
        assert jobs.get(job.job_id).state is JobState.DELIVERED
        Sweep(settings, opened.engine, spool, Nobody(), opened.trail).clean(past + timedelta(days=30))
        (deleted,) = told(repository, "110105")
        assert (deleted.study, deleted.action, deleted.description) == (STUDIES[0], "D", "2 instances")
        assert deleted.objects["2"].get("ParticipantObjectID") == "4711"
        sender.close()


def test_check_asks_the_repository(tmp_path, authorities) -> None:
    ours, strange = authorities

    def look(port) -> str:
        url = f"sqlite:///{tmp_path / 'alnnode.db'}"
        return check._audit(Listener(tmp_path, url, table(over_tls(authorities, port))).settings.audit, "ALNNODE")

    with tls_repository(ours.issue("audit.example"), ours) as (_, port):
        assert "TLSv1.3" in look(port)
    strangers = tls_repository(strange.issue("audit.example"), strange)
    with strangers as (_, port), pytest.raises(OSError, match="certificate verify failed"):
        look(port)
