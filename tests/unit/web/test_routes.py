"""The route table: every route of the application has a role and a description, and is made from the table."""

from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from starlette.routing import Mount, Route
from web_service import service

import alnnode
from alnnode.http import paths
from alnnode.http.openapi_operation import Operation
from alnnode.http.route_table import ApiRoute, PageRoute, Role, StaticFolder, WebSocketChannel, public_paths
from alnnode.web.openapi import describe
from alnnode.web.routes import ROUTES


def test_the_application_has_exactly_the_routes_of_the_table(tmp_path) -> None:
    with service(tmp_path) as (client, _):
        served = [route.path for route in client.app.routes]
    assert served == [entry.path for entry in ROUTES]


def test_one_module_names_the_path_of_dicomweb() -> None:
    package = Path(alnnode.__file__).parent
    named = [
        str(path.relative_to(package)) for path in package.rglob("*.py") if paths.DICOMWEB in path.read_text(encoding="utf-8")
    ]
    assert named == ["http/paths.py"]


def test_every_route_has_a_role_and_a_description() -> None:
    for entry in ROUTES:
        assert isinstance(entry.role, Role), entry.path
        summary = entry.operation.summary if isinstance(entry, ApiRoute) else entry.summary
        assert summary, entry.path


@pytest.mark.parametrize(
    ("kind", "required"),
    [(ApiRoute, {"role", "operation"}), (PageRoute, {"role", "summary"}), (WebSocketChannel, {"role", "summary"})],
)
def test_a_route_without_role_or_description_cannot_be_written(kind, required) -> None:
    without_default = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}
    assert required <= without_default
    with pytest.raises(TypeError, match="role"):
        kind(**dict.fromkeys(without_default - {"role"}))


def test_only_these_routes_need_no_token() -> None:
    public = [entry.path for entry in ROUTES if entry.role is Role.PUBLIC]
    assert sorted(public) == ["/health/live", "/health/ready", "/login", "/static"]
    others = [entry.path for entry in ROUTES if entry.role is not Role.PUBLIC]
    assert not [path for path in others if path.startswith(public_paths(ROUTES))], "a public path must not begin another path"


def test_routes_that_change_something_need_another_role_than_read() -> None:
    """Those that do with read: a search whose query must not be in the URL, and the subscriptions of a reader."""
    changing = [
        (method, entry.path)
        for entry in ROUTES
        if entry.role is Role.READ and not isinstance(entry, StaticFolder | WebSocketChannel)
        for method in (entry.methods if isinstance(entry, PageRoute) else (entry.method,))
        if method != "GET"
    ]
    subscriber = "/dicom-web/workitems/{workitem}/subscribers/{aetitle}"
    assert changing == [
        ("POST", "/search"),
        ("POST", subscriber),
        ("DELETE", subscriber),
        ("POST", f"{subscriber}/suspend"),
    ]


def test_each_route_is_described_by_its_role() -> None:
    operation = Operation(summary="Do it", responses={200: {"description": "done"}})
    described = describe(
        ApiRoute(method="GET", path=f"/{role}", endpoint=None, role=role, operation=operation)
        for role in (Role.PUBLIC, Role.SEND)
    )
    assert set(described["paths"]["/public"]["get"]["responses"]) == {"200"}
    assert set(described["paths"]["/send"]["get"]["responses"]) == {"200", "401", "403"}


def test_a_static_folder_is_the_only_route_without_a_check(tmp_path) -> None:
    with service(tmp_path) as (client, _):
        unchecked = [route.path for route in client.app.routes if isinstance(route, Mount)]
        open_pages = [
            route.path for route in client.app.routes if isinstance(route, Route) and route.endpoint.__name__ != "_answer"
        ]
    assert unchecked == ["/static"]
    assert open_pages == ["/health/live", "/health/ready", "/login", "/logout"]
