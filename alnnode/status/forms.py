"""Read and check the forms of the status page."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from alnnode.http.request_context import http_services, principal

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_FORM = 64 << 10  # bytes
MAX_FIELDS = 600  # a form can name every job of a list


async def checked_fields(request: Request) -> dict[str, str] | None:
    """Return the fields of a form if it contains the CSRF token of its session; None otherwise.

    A client that sends a token in the Authorization header needs no CSRF token.
    """
    fields = await checked_pairs(request)
    return None if fields is None else dict(fields)


async def checked_pairs(request: Request) -> list[tuple[str, str]] | None:
    """Return what `checked_fields` returns, with fields that the form contains several times."""
    fields, client, access = await _read_pairs(request), principal(request), http_services(request).access
    if not client.by_cookie and not access.open:
        return fields
    given = dict(fields).get("csrf", "")
    valid = bool(client.session) and given.isascii() and hmac.compare_digest(access.csrf_token(client.session), given)
    return fields if valid else None


async def read_fields(request: Request) -> dict[str, str]:
    """Return the fields of a form that needs no session, such as the login form."""
    return dict(await _read_pairs(request))


async def _read_pairs(request: Request) -> list[tuple[str, str]]:
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return []
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_FORM:
            raise HTTPException(413, f"the form is larger than {MAX_FORM >> 10} KiB")
    try:
        fields = parse_qsl(content.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return []
    # As in URLs (`alnnode.http.guard`): PostgreSQL accepts no NUL in a value.
    if any("\0" in text for pair in fields for text in pair):
        raise HTTPException(400, "the form contains a NUL character (%00)")
    return fields


def refuse_form() -> Response:
    """Return the response to a form without the CSRF token of its session."""
    return PlainTextResponse("this form has expired or was sent by another site; go back, reload the page and try again", 403)
