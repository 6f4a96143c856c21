"""Administration by the status page: destinations, pauses, retries, routes, rejected associations, the configuration."""

import html
import re
from datetime import UTC, datetime, timedelta

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from status_pages import PACS, TOKENS, copied, filled, log_in
from web_service import service

from alnnode.deliver.deliveries import Deliveries
from alnnode.receive.rejected_associations import RejectedAssociations
from alnnode.receive.rejections import Rejection, RejectionKind
from alnnode.records import JobState
from alnnode.settings import AuditFile


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    with filled(tmp_path_factory.mktemp("node")) as found:
        yield found


@pytest.fixture
def node(tmp_path, template):
    with copied(template, tmp_path) as found:
        yield found


def test_a_configured_destination_is_shown_before_its_first_delivery_and_its_failure_prevents_ready(node) -> None:
    client, opened, (job, _, _) = node
    log_in(client, "read")
    with service(opened.settings.node.data_dir / "fresh", destinations=(PACS,)) as (fresh, _):
        page = fresh.get("/").text
        assert 'href="/destinations/pacs"' in page
        assert "nothing sent yet" in page
    (delivery,) = [one for one in opened.jobs.get(job).deliveries if one.destination == "pacs"]
    error, tables = "the association was rejected: " + "a long reason, " * 40 + "END", Deliveries(opened.engine)
    tables.claim(delivery.delivery_id, timedelta(minutes=1))
    tables.deferred(delivery.delivery_id, error, datetime.now(UTC) + timedelta(hours=1))
    page = client.get("/").text
    assert "Results do not arrive:" in page
    assert "<strong>Ready.</strong>" not in page
    assert f"{error}</p>" in page, "the whole error"
    tables.refused(delivery.delivery_id, error)
    assert "Results do not arrive:" in client.get("/").text
    assert "Retry the failed deliveries" not in client.get("/destinations/pacs").text, "a reader cannot retry"


def test_an_administrator_tests_pauses_and_resumes_destinations_and_the_analysis(node) -> None:
    client, opened, _ = node
    csrf = log_in(client)
    for path in ("/destinations/pacs/test", "/destinations/pacs/pause", "/analysis/pause", "/jobs", "/routes"):
        assert client.post(path, data={"csrf": "0" * 64}).status_code == 403, path
    answer = client.post("/destinations/pacs/test", data={"csrf": csrf})
    assert (answer.status_code, "The test failed:" in answer.text) == (200, True)
    assert client.post("/destinations/nobody/test", data={"csrf": csrf}).status_code == 404
    assert client.post("/destinations/pacs/explode", data={"csrf": csrf}).status_code == 404
    for path, words in (("/destinations/pacs", "Paused</strong> by admin"), ("/analysis", "the analysis, by admin")):
        assert words in client.post(f"{path}/pause", data={"csrf": csrf}).text
        assert 'alnnode_paused{target="' in client.get("/metrics", headers={"Authorization": "Bearer admin-secret"}).text
        assert words not in client.post(f"{path}/resume", data={"csrf": csrf}).text
    assert Deliveries(opened.engine).due() != ()
    client.cookies.clear()
    csrf = log_in(client, "read")
    for path in ("/destinations/pacs/test", "/analysis/pause", "/jobs", "/routes"):
        assert client.post(path, data={"csrf": csrf}).status_code == 403, path
    assert client.get("/configuration").status_code == 403


def test_a_destination_that_answers_passes_the_test(tmp_path) -> None:
    entity = AE("PACS")
    entity.add_supported_context(Verification)
    pacs = entity.start_server(("127.0.0.1", 0), block=False)
    try:
        there = PACS.model_copy(update={"port": pacs.server_address[1]})
        with service(tmp_path, destinations=(there,)) as (client, _):
            csrf = re.search(r'name="csrf" value="([0-9a-f]{64})"', client.get("/").text)[1]
            assert "pacs answers C-ECHO after" in client.post("/destinations/pacs/test", data={"csrf": csrf}).text
    finally:
        pacs.shutdown()


def test_several_jobs_are_retried_and_failed_deliveries_sent_again(node) -> None:
    client, opened, (job, failed, _) = node
    csrf = log_in(client)
    assert f'value="{failed}"' in client.get("/?state=FAILED").text
    content = f"csrf={csrf}&job={failed}&job={'0' * 32}&job={failed}"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    page = client.post("/jobs", content=content, headers=headers).text
    assert ("is now ready" in page, "cannot be retried: there is no such job" in page) == (True, True)
    assert opened.jobs.get(failed).state is JobState.READY
    (delivery,) = [one for one in opened.jobs.get(job).deliveries if one.destination == "pacs"]
    Deliveries(opened.engine).refused(delivery.delivery_id, "no")
    assert opened.jobs.get(job).state is JobState.FAILED
    assert "is now analysed" in client.post("/destinations/pacs/retry", data={"csrf": csrf}).text
    assert opened.jobs.get(job).state is JobState.ANALYSED


def test_every_action_is_in_the_audit_trail(tmp_path, template) -> None:
    audit = AuditFile(kind="file", file=tmp_path / "audit.xml")
    with copied(template, tmp_path, audit=audit) as (client, opened, (_, failed, _)):
        csrf = log_in(client)
        for path in ("/destinations/pacs/test", "/destinations/pacs/pause", "/analysis/pause", "/analysis/resume"):
            client.post(path, data={"csrf": csrf})
        client.post("/jobs", data={"csrf": csrf, "job": failed})
        opened.trail.close()
        waiting = "".join(path.read_text() for path in tmp_path.rglob("*.xml"))
    for what in (
        "test of destination pacs",
        "pause of the destination pacs",
        "pause of the analysis",
        "resume of the analysis",
    ):
        assert what in waiting, what
    assert f"retry of job {failed}, study" in waiting


def test_rejected_associations_are_listed_with_what_to_change(node) -> None:
    client, opened, _ = node
    log_in(client, "read")
    assert "Rejected associations" not in client.get("/").text
    table = RejectedAssociations(opened.engine, interval=0.01)
    table.note(Rejection(RejectionKind.CALLED, "<b>WRONG", "CT1", "192.0.2.7"))
    table.close()
    for path in ("/", "/associations"):
        page = client.get(path).text
        assert "&lt;b&gt;WRONG" in page
        assert "Correct the called AE title at the sender" in page
    metrics = client.get("/metrics").text
    assert 'alnnode_rejected_associations_total{reason="called AE title"} 1.0' in metrics


def test_routes_are_tried_on_the_last_series(node) -> None:
    client, _, _ = node
    csrf = log_in(client)
    page = client.get("/routes").text
    assert page.count("</span> yes") == 3
    assert "all conditions hold" in page
    tried = client.post("/routes", data={"csrf": csrf, "routes": '[[routes]]\nname = "mr"\nmodalities = ["MR"]\n'}).text
    assert tried.count("</span> no") == 3
    assert "modality is CT" in tried
    assert "Nothing was changed." in tried
    wrong = client.post("/routes", data={"csrf": csrf, "routes": '[[routes]]\nname = "mr"\nmodalites = ["MR"]\n'}).text
    assert html.unescape(wrong).count('do you mean "modalities"?') == 1
    for text in ("x", "[node]\n", '[[routes]]\nname = "a"\ndescription = "("'):
        assert 'role="alert"' in client.post("/routes", data={"csrf": csrf, "routes": text}).text


def test_the_configuration_is_shown_without_secrets(node) -> None:
    client, _, _ = node
    log_in(client)
    page = client.get("/configuration").text
    for words in ("[[destinations]]", "max_associations", "PACS", "(not shown)@127.0.0.1:1/dicom-web?(not shown)"):
        assert words in html.unescape(page), words
    for path in ("/", "/destinations/archive", "/configuration"):
        assert "hunter" not in client.get(path).text, path
    assert not any(token.sha256 in page for token in TOKENS)
    assert "sweep_interval" not in page, "keys that are not for administrators"
