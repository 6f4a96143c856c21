"""A NUL character in a request is a fault of the client (400) at every route. PostgreSQL stores none, and would seem to have failed (503)."""

import re

import pytest
from starlette.websockets import WebSocketDisconnect
from web_service import service
from workitem import workitem

from alnnode.http.route_table import ApiRoute, PageRoute, StaticFolder, WebSocketChannel
from alnnode.settings import Database
from alnnode.web.routes import ROUTES


@pytest.fixture
def client(tmp_path, database_url):
    with service(tmp_path, database=Database(url=database_url)) as (client, _):
        yield client


def urls(path: str) -> list[str]:
    """Return the URL of a route with a NUL in each of its parameters, in a name and a value of the query, and at its end."""
    names = re.findall(r"{(\w+)}", path)
    plain = re.sub(r"{\w+(:int)?}", "1", path)
    inside = [re.sub(r"{\w+(:int)?}", "1", path.replace(f"{{{name}}}", "1%002")) for name in names]
    return [*inside, f"{plain}?PatientID=A%00B", f"{plain}?a=b&%00=c", f"{plain}%00"]


def requests() -> list[tuple[str, str]]:
    found = []
    for entry in ROUTES:
        if isinstance(entry, ApiRoute | PageRoute):
            methods = (entry.method,) if isinstance(entry, ApiRoute) else entry.methods
            found += [(method, url) for method in methods for url in urls(entry.path)]
        elif isinstance(entry, StaticFolder):
            found.append(("GET", f"{entry.path}/style%00.css"))
    return found


def test_a_nul_in_a_url_is_refused_at_every_route(client) -> None:
    answers = {request: client.request(*request, follow_redirects=False) for request in requests()}
    assert len(answers) > 100
    assert {request: answer.status_code for request, answer in answers.items() if answer.status_code != 400} == {}
    assert {answer.text for answer in answers.values()} == {"the URL contains a NUL character (%00)"}
    for entry in ROUTES:
        if isinstance(entry, WebSocketChannel):
            with pytest.raises(WebSocketDisconnect), client.websocket_connect(entry.path.replace("{aetitle}", "A%00")):
                pass
    assert client.get("/dicom-web/studies?PatientName=%C3%84%2500").status_code == 200, "no NUL"


def test_a_nul_in_a_form_is_refused(client) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    page = client.get("/search").text
    csrf = re.search('name="csrf" value="([^"]+)"', page)[1]
    for path, fields in (
        ("/jobs", "job=a%00"),
        ("/search", "words=1.2%00"),
        ("/routes", "routes=%00"),
        ("/login", "token=%00"),
    ):
        answer = client.post(path, content=f"csrf={csrf}&{fields}", headers=kind)
        assert (answer.status_code, answer.text) == (400, "the form contains a NUL character (%00)"), path


def poisoned(value):
    """Yield a workitem with a NUL at the end of each of its texts in turn."""
    if isinstance(value, str):
        yield f"{value}\0"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from ([*value[:number], other, *value[number + 1 :]] for other in poisoned(item))
    else:
        for key in value.keys() - {"vr"}:
            yield from ({**value, key: other} for other in poisoned(value[key]))


def test_a_nul_in_a_workitem_causes_no_error_of_the_database(client) -> None:
    assert client.post("/dicom-web/workitems?1.2.3", json=workitem()).status_code == 201
    statuses = set()
    for number, item in enumerate(poisoned(workitem())):
        statuses.add(client.post(f"/dicom-web/workitems?1.2.4.{number}", json=item).status_code)
        statuses.add(client.post("/dicom-web/workitems/1.2.3", json=item).status_code)
        statuses.add(client.put("/dicom-web/workitems/1.2.3/state", json=item).status_code)
    assert statuses <= {200, 201, 400, 409}
