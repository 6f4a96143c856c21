"""Write audit messages for HTTP requests: stored, searched and retrieved objects, logins, and refused tokens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from alnnode.audit import codes
from alnnode.audit.codes import Outcome
from alnnode.audit.events import study
from alnnode.audit.repeated_events import RepeatedEvents
from alnnode.audit.study_auditor import StudyAuditor, StudyInstances
from alnnode.http.access import UNKNOWN_USER
from alnnode.http.paths import DICOMWEB, STUDY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from alnnode.audit.trail import Trail
    from alnnode.dicomweb.catalogue import Catalogue
    from alnnode.dicomweb.stow_request import StowOutcome
    from alnnode.spool.spool import Spool

ACCESS = 300.0  # seconds within which the requests of one user for one study count as one access
BLOCKED = 60.0  # seconds within which the requests of a blocked address cause one message
SEARCHES = ("/studies", "/series", "/instances")


class HttpAuditor(StudyAuditor):
    """ASGI middleware around the guard: writes the messages for each request after its response."""

    def __init__(self, app: ASGIApp, trail: Trail, catalogue: Catalogue, spool: Spool) -> None:
        super().__init__(trail)
        self._app, self._catalogue, self._spool = app, catalogue, spool
        self._accesses, self._blocked = RepeatedEvents(ACCESS), RepeatedEvents(BLOCKED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and write its audit messages."""
        if scope["type"] != "http" or not self._trail.enabled:
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        finally:
            self._report(scope, status)

    def _report(self, scope: Scope, status: int) -> None:
        state, address = scope.get("state", {}), (scope.get("client") or ("",))[0]
        who = getattr(state.get("principal"), "name", UNKNOWN_USER)
        path, method = getattr(scope.get("route"), "path", ""), scope["method"]
        if path in {"/login", "/logout"} and method == "POST":
            self._session(state.get("entered", who), address, status, left=path == "/logout")
        elif state.get("too_fast"):
            return  # the client exceeded its request rate: that is not a security event
        elif status in {401, 429}:
            if status == 429 or any(name == b"authorization" for name, _ in scope["headers"]):
                self._failed_login(address, status)
        elif status == 403:
            why = f"{method} {path}: the token does not have the role"
            self._write(self._events.alert(codes.RESTRICTED_FUNCTION, who, address, why))
        elif "acted" in state:
            self._acted(who, address, state["acted"])
        elif "stow" in state:
            self._stored(who, address, state["stow"])
        elif method == "GET" and path.startswith(DICOMWEB) and path.endswith(SEARCHES):
            outcome = Outcome.SUCCESS if status == 200 else Outcome.MINOR_FAILURE
            self._write(self._events.queried(who, address, self._query(scope, path, status), outcome))
        elif status == 200 and (uid := state.get("study") or (path.startswith(STUDY) and scope["path_params"]["study"])):
            self._retrieved(who, address, str(uid), metadata=path.endswith("/metadata"))

    def _session(self, who: str, address: str, status: int, *, left: bool) -> None:
        if status == 303:
            self._write(self._events.authenticated(who, address, Outcome.SUCCESS, left=left))
        elif not left:
            self._failed_login(address, status)

    def _acted(self, who: str, address: str, actions: Iterable[str]) -> None:
        for what in actions:
            self._write(self._events.acted(who, address, what))

    def _failed_login(self, address: str, status: int) -> None:
        outcome, why = Outcome.MINOR_FAILURE, "not a token of this node"
        if status == 429:
            if not self._blocked.is_first(address):
                return
            outcome, why = Outcome.SERIOUS_FAILURE, "too many wrong tokens from this address"
        self._write(self._events.authenticated(UNKNOWN_USER, address, outcome, why=why))

    def _stored(self, who: str, address: str, outcome: StowOutcome) -> None:
        studies: dict[str, StudyInstances] = {}
        for row in outcome.stored:
            instances = studies.setdefault(row.study_uid, StudyInstances(files=partial(self._files, row.study_uid)))
            instances.classes[row.sop_class_uid] += 1
        self._write_received(who, address, studies, len(outcome.failed))

    def _retrieved(self, who: str, address: str, uid: str, *, metadata: bool) -> None:
        if self._accesses.is_first(who, address, uid, metadata):
            self._write(self._events.retrieved(who, address, study(uid), metadata=metadata), partial(self._files, uid))

    def _query(self, scope: Scope, path: str, status: int) -> bytes:
        """Return the query; without its values unless messages may identify patients, and without parameters if it was not valid."""
        if self._trail.identity:
            return str(scope["path"]).encode() + b"?" + bytes(scope["query_string"])
        if status != 200:
            return path.encode()
        names = [name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)]
        return f"{scope['path']}?{'&'.join(f'{name}=' for name in names)}".encode()

    def _files(self, uid: str) -> Iterable[Path]:
        return [self._spool.path(one.path) for one in self._catalogue.instances([uid], limit=1)]
