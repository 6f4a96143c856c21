"""Negotiate the content type of responses (PS3.18 section 8.7)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alnnode.multipart import media_type

if TYPE_CHECKING:
    from starlette.requests import Request

MULTIPART = "multipart/related"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_COMMA = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')  # outside quotes


@dataclass(frozen=True, slots=True)
class AcceptedMediaType:
    """One media type that the client accepts.

    Attributes:
        kind: the media type; if ``multipart``, that of the parts.
        multipart: whether the client accepts parts of this type in ``multipart/related``.
        syntax: the Transfer Syntax UID, or ``*`` for any; None if the client names none.
        parameters: all parameters of the media type.
    """

    kind: str
    multipart: bool = False
    syntax: str | None = None
    parameters: dict[str, str] = field(default_factory=dict, compare=False)

    def includes(self, kind: str) -> bool:
        """Return whether this is the given media type, or a range that includes it."""
        return self.kind in {kind, "*/*", kind.partition("/")[0] + "/*"}


def accepted_media_types(request: Request) -> list[AcceptedMediaType]:
    """Return what the client accepts, the preferred type first.

    The query parameter ``accept`` overrides the header; without either the client accepts every type.
    """
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
        media = AcceptedMediaType(found.get("type", "").lower() or "*/*", True, found.get("transfer-syntax"), found)
        if kind != MULTIPART:
            media = AcceptedMediaType(kind, False, found.get("transfer-syntax"), found)
        ranked.append((quality, media))
    ranked.sort(key=lambda pair: -pair[0])
    return [media for _, media in ranked]


def accepts_dicom_json(request: Request) -> bool:
    """Return whether the client accepts the DICOM JSON model."""
    kinds = ("application/dicom+json", "application/json")
    return any(media.includes(kind) for media in accepted_media_types(request) for kind in kinds)
