"""What the HTTP service tells the audit trail: who sent, searched, fetched and logged in, and whose token was none."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from alnnode.audit import codes
from alnnode.audit.codes import Outcome
from alnnode.audit.events import study
from alnnode.audit.repeated_events import RepeatedEvents
from alnnode.audit.trail import patient_in
from alnnode.web.access import NOBODY

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from alnnode.audit.message import ParticipantObject
    from alnnode.web.services import Services

ACCESS = 300.0  # seconds in which one user's requests for one study are one access
BLOCKED = 60.0  # seconds in which requests of a blocked address are told once
ROOT, STUDY = "/dicom-web", "/dicom-web/studies/{study}"
SEARCHES = ("/studies", "/series", "/instances")


class Audited:
    """ASGI middleware around the guard: looks at each request when it was answered."""

    def __init__(self, app: ASGIApp, opened: Services) -> None:
        self._app, self._opened, self._trail = app, opened, opened.trail
        self._accesses, self._blocked = RepeatedEvents(ACCESS), RepeatedEvents(BLOCKED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        if scope["type"] != "http" or not self._trail.enabled:
            await self._app(scope, receive, send)
            return
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._tell(scope, status)

    def _tell(self, scope: Scope, status: int) -> None:
        state, address = scope.get("state", {}), (scope.get("client") or ("",))[0]
        who = getattr(state.get("principal"), "name", NOBODY)
        path, method = getattr(scope.get("route"), "path", ""), scope["method"]
        if path in {"/login", "/logout"} and method == "POST":
            self._session(state.get("entered", who), address, status, left=path == "/logout")
        elif state.get("too_fast"):
            return  # no matter of security, and no wrong token
        elif status in {401, 429}:
            if status == 429 or any(name == b"authorization" for name, _ in scope["headers"]):
                self._failed(address, status)
        elif status == 403:
            why = f"{method} {path}: the token does not have the role"
            self._trail.put(self._trail.events.alert(codes.RESTRICTED_FUNCTION, who, address, why))
        elif "acted" in state:
            self._trail.put(self._trail.events.acted(who, address, state["acted"]))
        elif "stow" in state:
            self._stored(who, address, state["stow"])
        elif method == "GET" and path.startswith(ROOT) and path.endswith(SEARCHES):
            query = self._query(scope, path, status)
            outcome = Outcome.SUCCESS if status == 200 else Outcome.MINOR_FAILURE
            self._trail.put(self._trail.events.queried(who, address, query, outcome))
        elif status == 200 and (fetched := state.get("study") or (path.startswith(STUDY) and scope["path_params"]["study"])):
            self._fetched(who, address, str(fetched), metadata=path.endswith("/metadata"))

    def _session(self, who: str, address: str, status: int, *, left: bool) -> None:
        if status == 303:
            self._trail.put(self._trail.events.authenticated(who, address, Outcome.SUCCESS, left=left))
        elif not left:
            self._failed(address, status)

    def _failed(self, address: str, status: int) -> None:
        outcome, why = Outcome.MINOR_FAILURE, "not a token of this node"
        if status == 429:
            if not self._blocked.is_first(address):
                return
            outcome, why = Outcome.SERIOUS_FAILURE, "too many wrong tokens from this address"
        self._trail.put(self._trail.events.authenticated(NOBODY, address, outcome, why=why))

    def _stored(self, who: str, address: str, outcome: Any) -> None:
        classes: dict[str, Counter[str]] = {}
        for row in outcome.stored:
            classes.setdefault(row.study_uid, Counter())[row.sop_class_uid] += 1
        refused = len(outcome.failed)
        for uid, counts in (classes or {NOBODY: Counter()}).items():
            self._trail.put(self._trail.events.received(who, address, study(uid, counts), refused), partial(self._patient, uid))
            refused = 0  # nobody knows of which study they were: told once

    def _fetched(self, who: str, address: str, uid: str, *, metadata: bool) -> None:
        if not self._accesses.is_first(who, address, uid, metadata):
            return
        self._trail.put(self._trail.events.retrieved(who, address, study(uid), metadata=metadata), partial(self._patient, uid))

    def _query(self, scope: Scope, path: str, status: int) -> bytes:
        """Return what was asked; its values only where patients may be named, and what was not understood not at all."""
        if self._trail.identity:
            return str(scope["path"]).encode() + b"?" + bytes(scope["query_string"])
        if status != 200:
            return path.encode()
        names = [name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)]
        return f"{scope['path']}?{'&'.join(f'{name}=' for name in names)}".encode()

    def _patient(self, uid: str) -> ParticipantObject | None:
        held = self._opened.catalogue.instances([uid], limit=1)
        return patient_in(self._opened.spool.path(one.path) for one in held)
