"""The status page: its content, the checks of its forms, and its accessibility in Chromium."""

import html
import os
import re
import shutil
from contextlib import contextmanager
from hashlib import sha256

import httpx
import pytest
import viewers
from analyses import analysis
from dicom_objects import STUDY
from status_pages import ARCHIVE, PACS, TOKENS, copied, disturb, fill, filled, history, log_in
from web_service import server, service

from alnnode.deliver.deliveries import Deliveries
from alnnode.model import bundle as bundles
from alnnode.process import heartbeat
from alnnode.process.job_logs import JobLogs
from alnnode.records import JobState, ObjectRole
from alnnode.report import answer
from alnnode.settings import Web
from alnnode.status import rendering
from alnnode.task_queue import ANALYSE, DELIVER


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    with filled(tmp_path_factory.mktemp("node")) as found:
        yield found


@pytest.fixture
def node(tmp_path, template):
    with copied(template, tmp_path) as found:
        yield found


def test_the_page_shows_jobs_and_results_without_patient_data(node) -> None:
    client, opened, (job, failed, _) = node
    log_in(client, "read")
    page = client.get("/").text
    assert job[:8] in page
    assert "12.0 mm apart" in page
    assert bundles.load(bundles.resolve("demo")).manifest.name in page
    detail = client.get(f"/jobs/{job}").text
    assert detail.count("<img") == 1 + sum(row.role is ObjectRole.CAPTURE for row in opened.jobs.results(job))
    assert "delivered to archive" in detail
    assert html.unescape(re.search('<ul class="results">(.*?)</ul>', detail, re.DOTALL)[1]).count("<li>") > 8
    for line in answer.lines(analysis(2)):
        assert f"<li>{html.escape(line)}</li>" in detail
    assert "Retry" not in detail, "a reader cannot retry"
    for text in (page, detail, client.get(f"/jobs/{failed}").text):
        assert not re.search("SECRET|PHANTOM\\^REPORT|P-1", text)
    assert client.get("/?state=FAILED").text.count("/jobs/") == 1
    assert client.get(f"/jobs/{'0' * 32}").status_code == 404
    picture = client.get(f"/jobs/{job}/captures/1")
    assert (picture.headers["content-type"], picture.content[:2]) == ("image/jpeg", b"\xff\xd8")


def test_jobs_are_found_by_accession_number_uid_digest_and_id(node) -> None:
    client, opened, (job, failed, _) = node
    csrf = log_in(client, "read")

    def found(words):
        text = client.post("/search", data={"csrf": csrf, "words": words}).text
        return set(re.findall(r'href="/jobs/([0-9a-f]{32})"', text))

    status = opened.jobs.get(job)
    assert found("ACC-77") == found(f"{STUDY}") != set()
    assert failed in found("ACC-77")
    assert found(status.series_uid) == found(status.study_uid) == {job}
    assert found(sha256(status.series_uid.encode()).hexdigest()[:12]) == found(job[:10]) == {job}
    assert found("ACC-7") == found("2.25") == found("a") == set()


def test_forms_need_the_token_of_their_session_and_the_role(node) -> None:
    client, opened, (job, failed, waiting) = node
    csrf = log_in(client)
    for wrong in ({}, {"csrf": "0" * 64}, {"csrf": "é"}):
        assert client.post(f"/jobs/{failed}/retry", data=wrong).status_code == 403
    assert opened.jobs.get(failed).state is JobState.FAILED
    assert client.post(f"/jobs/{failed}/retry", data={"csrf": csrf}).status_code == 200
    assert opened.jobs.get(failed).state is JobState.READY
    assert client.post(f"/jobs/{job}/cancel", data={"csrf": csrf}).status_code == 200
    cancelled = opened.jobs.get(job)
    assert (cancelled.state, cancelled.reason) == (JobState.FAILED, "cancelled by admin")
    assert Deliveries(opened.engine).due() == ()
    assert client.post(f"/jobs/{job}/cancel", data={"csrf": csrf}).status_code == 409
    assert client.post(f"/jobs/{waiting}/cancel", data={"csrf": csrf}).status_code == 409
    # A session without a token cannot store objects.
    assert client.post("/dicom-web/studies", content=b"").status_code == 403
    client.cookies.clear()
    assert client.post(f"/jobs/{job}/retry", headers={"Authorization": "Bearer admin-secret"}).status_code == 200
    csrf = log_in(client, "read")
    assert client.post(f"/jobs/{job}/retry", data={"csrf": csrf}).status_code == 403
    assert client.post("/logout", data={"csrf": csrf}, follow_redirects=False).status_code == 303
    assert client.get("/", headers={"Accept": "text/html"}, follow_redirects=False).headers["location"] == "/login?next=/"


def test_a_login_with_a_wrong_token_or_a_redirect_to_another_site(tmp_path) -> None:
    with service(tmp_path, web=Web(tokens=TOKENS)) as (client, _):
        assert client.post("/login", data={"token": "guess"}).status_code == 403
        elsewhere = client.post("/login?next=//evil.example/", data={"token": "read-secret"}, follow_redirects=False)
        assert elsewhere.headers["location"] == "/"
        answers = [client.post("/login", data={"token": "guess"}).status_code for _ in range(25)]
        assert answers[-1] == 429


def test_without_tokens_forms_still_need_the_csrf_token_of_their_session(tmp_path) -> None:
    with service(tmp_path) as (client, opened):
        _, failed, _ = fill(opened, client)
        assert client.post(f"/jobs/{failed}/retry").status_code == 403
        csrf = re.search(r'name="csrf" value="([0-9a-f]{64})"', client.get("/").text)[1]
        assert client.post(f"/jobs/{failed}/retry", data={"csrf": csrf}).status_code == 200


def test_the_overview_refreshes_itself_until_the_user_stops_it(node) -> None:
    client, _, (_, failed, waiting) = node
    log_in(client, "read")
    assert (client.get("/").headers["refresh"], "Stop refreshing" in client.get("/").text) == ("30", True)
    for path in ("/?refresh=off", "/?state=FAILED", f"/jobs/{failed}", "/search", "/routes"):
        assert "refresh" not in client.get(path).headers, path
    assert client.get(f"/jobs/{waiting}").headers["refresh"] == "30"
    assert 'type="search"' not in client.get("/").text, "a refresh would delete the words"
    assert "script" not in client.get("/").headers["content-security-policy"]


def test_the_page_of_a_job_has_its_log(node) -> None:
    client, opened, (job, failed, _) = node
    log_in(client, "read")
    logs = JobLogs(opened.settings.node.data_dir)
    event = {"event": "job_claimed", "job": job, "attempt": 1, "level": "info", "timestamp": "2026-01-01T00:00:00Z"}
    assert logs.write(None, "", event) == event
    for other in ("../" * 8, "x" * 32, None):
        logs.write(None, "", {"event": "e", "job": other})
    page = client.get(f"/jobs/{job}").text
    assert ("job_claimed" in page, "attempt: 1" in page) == (True, True)
    assert "job_claimed" not in client.get(f"/jobs/{failed}").text
    for _ in range(2000):
        logs.write(None, "", event)
    (file,) = (opened.settings.node.data_dir / "job-logs").rglob("*.jsonl")
    assert (file.stat().st_size <= 65536, file.stat().st_mode & 0o777) == (True, 0o600)
    assert (logs.delete_before(0), logs.delete_before(file.stat().st_mtime + 1)) == (0, 1)


PAGES = ("/?refresh=off", "/?state=FAILED", "/destinations/pacs", "/routes", "/associations", "/configuration", "/search")
PICTURES = {
    "/destinations/pacs": "status-destination.png",
    "/routes": "status-routes.png",
    "/associations": "status-associations.png",
}
AXE = os.environ.get("ALNNODE_AXE")  # axe.min.js of the npm package axe-core


# The pills of the states that are wider than the room in their tiles.
WIDE = """() => [...document.querySelectorAll('.tiles a')].filter(tile => {
  const room = tile.getBoundingClientRect().right - parseFloat(getComputedStyle(tile).paddingRight)
  return tile.querySelector('.chip').getBoundingClientRect().right > room
}).map(tile => tile.innerText)"""


@contextmanager
def browsing(folder):
    """Yield a browser, the URL of a node with all that its pages can show, and the services and job ids of the node."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with (
        server(folder, web=Web(tokens=TOKENS), destinations=(PACS, ARCHIVE)) as (url, opened),
        httpx.Client(base_url=url, timeout=60, headers={"Authorization": "Bearer admin-secret"}) as client,
        sync_api.sync_playwright() as play,
    ):
        jobs = fill(opened, client)
        history(opened, opened.jobs.get(jobs[2]).series_uid)
        disturb(opened, jobs[0])
        for worker in (ANALYSE, DELIVER):
            heartbeat.beat(opened.settings.node.data_dir, worker)
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=["--headless=new", "--no-sandbox"])
        try:
            yield browser, url, opened, jobs
        finally:
            browser.close()


@pytest.mark.skipif(not AXE, reason="needs a browser: `make viewer` runs it")
@pytest.mark.timeout(400)
def test_in_chromium_by_keyboard_in_light_and_dark(tmp_path) -> None:
    with browsing(tmp_path) as (browser, url, opened, (job, failed, _)):
        for scheme in ("light", "dark"):
            # The debugger injects axe; the test checks before that the policy of the page allows no scripts.
            context = browser.new_context(viewport={"width": 1360, "height": 1000}, color_scheme=scheme, bypass_csp=True)
            page = context.new_page()
            elsewhere: list[str] = []
            page.on("request", lambda request, seen=elsewhere: request.url.startswith(url) or seen.append(request.url))
            assert "script" not in page.goto(f"{url}/").headers["content-security-policy"]
            check(page, "login")
            page.keyboard.type("admin-secret")  # the field has the focus
            page.keyboard.press("Enter")
            page.get_by_role("heading", name="Most recent jobs").wait_for()
            page.get_by_role("link", name="Stop refreshing").press("Enter")
            page.get_by_role("link", name="Refresh every 30 s").wait_for()
            check(page, f"overview {scheme}")
            viewers.picture(page, f"status-{scheme}.png")
            for width in (1280, 390, 1360):
                page.set_viewport_size({"width": width, "height": 1000})
                assert page.evaluate(WIDE) == [], f"at a width of {width}"
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.textContent") == "Skip to content"
            page.get_by_role("link", name=job[:8]).press("Enter")
            page.get_by_role("heading", name="Captures").wait_for()
            page.wait_for_function("() => [...document.images].every(i => i.complete && i.naturalWidth > 0)")
            check(page, f"job {scheme}")
            viewers.picture(page, f"status-job-{scheme}.png", full_page=True)
            for path in PAGES:
                page.set_viewport_size({"width": 1360, "height": 1000})
                page.goto(url + path)
                check(page, f"{path} {scheme}")
                if scheme == "light" and path in PICTURES:
                    viewers.picture(page, PICTURES[path])
                page.set_viewport_size({"width": 390, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{path} must fit the width of a phone"
                check(page, f"{path} {scheme} on a phone")
            page.goto(f"{url}/?refresh=off")
            if scheme == "light":
                viewers.picture(page, "status-phone.png")
            page.goto(f"{url}/jobs/{job}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            context.close()
            assert elsewhere == []
        page = browser.new_page()
        page.goto(f"{url}/login?next=/jobs/{failed}")
        page.get_by_label("Token").fill("admin-secret")
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Retry").click()
        page.locator(".chip.ready").wait_for()
        assert opened.jobs.get(failed).state is JobState.READY


@pytest.mark.skipif(not AXE, reason="needs a browser: `make viewer` runs it")
@pytest.mark.timeout(400)
def test_in_chromium_an_administrator_acts_and_the_page_refreshes_itself(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rendering, "REFRESH", 2)
    with browsing(tmp_path) as (browser, url, opened, _):
        page = browser.new_page()
        page.goto(f"{url}/login?next=/destinations/pacs")
        page.get_by_label("Token").fill("admin-secret")
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Test").click()
        page.get_by_text("The test failed:").wait_for()
        page.get_by_role("button", name="Pause").click()
        page.get_by_text("Paused by admin").wait_for()
        page.get_by_role("link", name="Routes").click()
        page.get_by_label("Try other routes").fill('[[routes]]\nname = "mr"\nmodalities = ["MR"]\n')
        page.get_by_role("button", name="Try").click()
        page.get_by_text("Nothing was changed.").wait_for()
        page.get_by_role("link", name="Status").click()
        page.get_by_role("heading", name="Most recent jobs").wait_for()
        opened.services.status.pauses.pause("analysis", "somebody")
        page.get_by_text("the analysis, by somebody").wait_for()  # without an action of the user
        page.get_by_role("link", name="Stop refreshing").click()
        page.get_by_role("link", name="Refresh every 2 s").wait_for()
        opened.services.status.pauses.resume("analysis")
        page.goto(f"{url}/?state=DELIVERED")
        page.get_by_role("checkbox").first.check()
        page.get_by_role("button", name="Send again the selected jobs").click()
        page.get_by_role("heading", name="1 job").wait_for()


def check(page, name) -> None:
    page.add_script_tag(path=AXE)
    found = page.evaluate("async () => (await axe.run()).violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html)])")
    assert not [one for one in found if one[0] in {"serious", "critical"}], (name, found)
