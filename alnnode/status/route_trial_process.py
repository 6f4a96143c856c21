"""The process in which routes are tried for the status page: ``python -m alnnode.status.route_trial_process``.

A regular expression can need hours, or all memory, already while it is compiled. The kernel can stop a process, and nothing can stop a thread.
A request and an answer are JSON.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from alnnode.db.rows import SeriesFacts
from alnnode.errors import SettingsError
from alnnode.process.request_processes import RequestLimits, answer_requests
from alnnode.receive.routes import mismatch, unwanted
from alnnode.settings import Route, load_routes

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMITS = RequestLimits(seconds=5, memory=256 << 20)


def tried(request: bytes) -> Sequence[bytes]:
    """Return the answer to a request: what becomes of each series, or what is wrong with the routes."""
    asked = json.loads(request)
    try:
        routes = [Route(**one) for one in asked["routes"]] if asked["text"] is None else load_routes(asked["text"])
    except SettingsError as error:
        return [json.dumps({"error": str(error)}).encode()]
    return [json.dumps({"outcomes": [_outcome(routes, SeriesFacts(**facts)) for facts in asked["series"]]}).encode()]


def _outcome(routes: Sequence[Route], facts: SeriesFacts) -> dict[str, Any]:
    return {"unwanted": unwanted(routes, facts), "reasons": [(route.name, mismatch(route, facts)) for route in routes]}


if __name__ == "__main__":
    answer_requests(tried, LIMITS)
