"""Content negotiation (PS3.18 section 8.7): what the client takes, best first."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alnnode.multipart import media_type

if TYPE_CHECKING:
    from starlette.requests import Request

MULTIPART = "multipart/related"
EXPLICIT = "1.2.840.10008.1.2.1"
_COMMA = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')


@dataclass(frozen=True, slots=True)
class Media:
    """One media type that is taken. ``kind`` is that of the parts when ``multipart``; a missing transfer syntax is None."""

    kind: str
    multipart: bool = False
    syntax: str | None = None
    parameters: dict[str, str] = field(default_factory=dict, compare=False)

    def takes(self, kind: str) -> bool:
        """Whether this is the media type, or a range that it lies in."""
        return self.kind in {kind, "*/*", kind.partition("/")[0] + "/*"}


def accepted(request: Request) -> list[Media]:
    """Return what the query parameter ``accept``, or else the header, names; anything when neither is there."""
    given = request.query_params.get("accept") or ", ".join(request.headers.getlist("accept")) or "*/*"
    ranked = []
    for entry in _COMMA.split(given):
        kind, found = media_type(entry.strip())
        try:
            quality = float(found.get("q", "1"))
        except ValueError:
            quality = 0.0
        if quality <= 0 or not kind:
            continue
        media = Media(found.get("type", "").lower() or "*/*", True, found.get("transfer-syntax"), found)
        if kind != MULTIPART:
            media = Media(kind, False, found.get("transfer-syntax"), found)
        ranked.append((quality, media))
    ranked.sort(key=lambda pair: -pair[0])
    return [media for _, media in ranked]


def wants_json(request: Request) -> bool:
    """Whether the DICOM JSON model is taken."""
    return any(media.takes(kind) for media in accepted(request) for kind in ("application/dicom+json", "application/json"))
