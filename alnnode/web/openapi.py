"""Make the OpenAPI 3.1 description of the routes for programs; docs/openapi.json is a copy of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from alnnode import __version__
from alnnode.http.route_table import ApiRoute, Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alnnode.http.route_table import RouteEntry

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")  # of a Starlette path: the name, and a converter
_UID = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)*$", "maxLength": 64}
_SCHEMAS: dict[str, dict[str, Any]] = {  # of path parameters that are not UIDs
    "frames": {"type": "string", "pattern": "^[1-9][0-9]*(,[1-9][0-9]*)*$"},
    "path": {"type": "string"},
    "aetitle": {"type": "string", "minLength": 1, "maxLength": 16},
}


def describe(table: Iterable[RouteEntry]) -> dict[str, Any]:
    """Return the OpenAPI Object of the routes for programs."""
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        if isinstance(route, ApiRoute):
            item = paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})
            item[route.method.lower()] = route.operation.document(public=route.role is Role.PUBLIC)
            names = _PARAMETER.findall(route.path)
            if names:
                item["parameters"] = [_path_parameter(name) for name in names]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "alnnode",
            "version": __version__,
            "description": "DICOMweb (PS3.18), health and metrics of an AI node for axillary lymph nodes. Research use only.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": dict(sorted(paths.items())),
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _SCHEMAS.get(name, _UID)}
