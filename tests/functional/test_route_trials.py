"""Routes that an administrator tries: no expression takes time or memory without limit, or stops other requests."""

import html
import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from dicom_objects import ct
from web_service import body, content_type, part10, server, service

from alnnode.settings import Route
from alnnode.status.route_trial_process import LIMITS

LIMIT = LIMITS.seconds + 5.0  # seconds for the whole request
# Each is valid, and passes the check of single expressions.
COSTLY = {
    "exponential for the description of a series": "^(?:a|b|ab)*[^abX]",
    "repeated repetitions, which take 450 MB": "(?:a{1000}){1000}",
}


def routes(*expressions: str) -> str:
    lines = ("[[routes]]", "name = 'r{}'", "description = '''{}'''", "")
    return "".join("\n".join(lines).format(number, one) for number, one in enumerate(expressions))


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    image = part10(ct(1, SeriesDescription="ab" * 30 + "X", StudyDescription="ab" * 30 + "X"))
    with server(tmp_path_factory.mktemp("web")) as (url, opened), httpx.Client(base_url=url, timeout=120) as found:
        assert found.post("/dicom-web/studies", content=body(image), headers=content_type()).status_code == 200
        opened.acceptor.close()
        yield found


def tried(client, text: str) -> str:
    csrf = re.search(r'name="csrf" value="([0-9a-f]{64})"', client.get("/routes").text)[1]
    answer = client.post("/routes", data={"csrf": csrf, "routes": text})
    assert answer.status_code == 200
    return html.unescape(answer.text)


@pytest.mark.parametrize("kind", COSTLY)
def test_routes_that_take_too_long_are_stopped_and_others_are_answered_meanwhile(client, kind) -> None:
    text = routes(*[COSTLY[kind]] * (7900 // len(routes(COSTLY[kind] + "##"))))
    with ThreadPoolExecutor(1) as pool:
        begun, waits = time.monotonic(), []
        trial = pool.submit(tried, client, text)
        while not trial.done():
            asked = time.monotonic()
            assert client.get("/health/live").status_code == 200
            waits.append(time.monotonic() - asked)
            time.sleep(0.05)
        took = time.monotonic() - begun
    assert "were not tried: this takes more than" in trial.result()
    assert took < LIMIT
    assert max(waits) < 2.0
    assert "all conditions hold" in tried(client, routes("^(ab)+"))


def test_more_text_than_is_read_is_refused(client) -> None:
    page = tried(client, routes("a") + "#" * 8000)
    assert "more than 8000 characters" in page


def test_a_form_that_is_too_large_is_called_so(client) -> None:
    answer = client.post("/routes", data={"routes": "#" * 70_000})
    assert (answer.status_code, answer.text) == (413, "the form is larger than 64 KiB")


def test_the_routes_of_the_configuration_can_be_tried_as_they_are_shown(tmp_path) -> None:
    with service(tmp_path, routes=(Route(name="r", description="Schädel|🩻"),)) as (own, _):
        shown = html.unescape(re.search("<textarea[^>]*>(.*?)</textarea>", own.get("/routes").text, re.DOTALL)[1])
        assert "Schädel|🩻" in shown
        page = tried(own, shown)
    assert 'role="alert"' not in page
    assert "with the routes that you try" in page
