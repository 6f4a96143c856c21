"""docs/openapi.json matches the service, and no request, valid or not, causes a server error."""

import json
import re
from pathlib import Path

import pytest
from dicom_objects import STUDY, ct
from hypothesis import HealthCheck, Phase, settings
from starlette.routing import Mount, WebSocketRoute
from web_service import part10, service, stow
from workitem import workitem

from alnnode.http.route_table import PageRoute
from alnnode.web.openapi import describe
from alnnode.web.routes import ROUTES

schemathesis = pytest.importorskip("schemathesis")
DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
PAGES = {entry.path for entry in ROUTES if isinstance(entry, PageRoute)}


def test_the_document_matches_the_route_table() -> None:
    assert json.loads(DOCUMENT.read_text(encoding="utf-8")) == describe(ROUTES)


def test_every_route_for_programs_is_described(tmp_path) -> None:
    with service(tmp_path) as (client, _):
        assert client.get("/openapi.json").json() == describe(ROUTES)
        routed = {
            (re.sub(r":[a-z]+\}", "}", route.path), method.lower())
            for route in client.app.routes
            if not isinstance(route, Mount | WebSocketRoute)  # OpenAPI cannot describe WebSockets
            for method in (route.methods or ()) - {"HEAD"}
        }
    described = {
        (path, method) for path, item in describe(ROUTES)["paths"].items() for method in item if method != "parameters"
    }
    assert {one for one in routed if one[0] not in {re.sub(r":[a-z]+\}", "}", page) for page in PAGES}} == described


def body_of(case):
    """A generated body; for half of the requests, nearly a workitem."""
    if not isinstance(case.body, dict | list):
        return {}
    made = (
        case.body
        if len(str(case.body)) % 2
        else {**workitem(codes=("L:OTHER",)), **(case.body if isinstance(case.body, dict) else {})}
    )
    return {"content": json.dumps(made), "headers": {"Content-Type": "application/dicom+json"}}


def test_no_request_causes_a_server_error(tmp_path) -> None:
    """Schemathesis generates requests with values that match the description, and with values that do not."""
    counted = {}
    with service(tmp_path) as (client, opened):
        assert stow(client, *(part10(ct(n, StudyDate="20260301")) for n in (1, 2))).status_code == 200
        opened.acceptor.close()
        document = describe(ROUTES)
        workitem_uid = "1.2.3"
        assert client.post(f"/dicom-web/workitems?{workitem_uid}", json=workitem(codes=("L:OTHER",))).status_code == 201
        held = {
            "workitem": workitem_uid,
            "aetitle": "WATCHER",
            "study": STUDY,
            "series": f"{STUDY}.1",
            "instance": f"{STUDY}.1.1",
            "frames": "1",
            "path": "7FE00010",
        }
        for item in document["paths"].values():
            for parameter in item.get("parameters", ()):
                # Half of the requests name existing objects.
                known = {"const": held[parameter["name"]]}
                parameter["schema"] = {"anyOf": [known, parameter["schema"]]}
        document["paths"].pop("/health/ready")  # answers 503 without a worker
        schema = schemathesis.openapi.from_dict(document)
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path.startswith("/dicom-web/studies") and operation.method == "post":
                continue  # test_stow covers its bodies

            @settings(
                max_examples=15, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            def ask(case) -> None:
                query = {name: str(value) for name, value in (case.query or {}).items()}
                path = case.formatted_path
                answer = client.request(case.method, path, params=query, **body_of(case))
                assert answer.status_code < 500, (path, query, answer.text[:200])
                counted[answer.status_code] = counted.get(answer.status_code, 0) + 1

            from hypothesis import given

            given(case=operation.as_strategy())(ask)()
    assert sum(counted.values()) >= 200
    assert counted[200] >= 50, counted
