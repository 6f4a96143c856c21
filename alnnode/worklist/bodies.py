"""Data sets in the bodies of requests to the worklist, in the DICOM JSON model (PS3.18 Annex F)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json
from pydicom import Dataset
from starlette.responses import PlainTextResponse

from alnnode.dicomweb.dicom_json import MAX_DEPTH, depth
from alnnode.multipart import media_type
from alnnode.worklist.ups import Status

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from alnnode.errors import WorkitemRefused
    from alnnode.worklist.ups import Json

JSON = "application/dicom+json"
MAX_BYTES = 1 << 20
SERVICE = "alnnode"
# PS3.18 sections 11.4 to 11.8; what is not named is a conflict with the workitem's state (409).
_CODES = {
    Status.MISSING_ATTRIBUTE: 400,
    Status.INVALID_VALUE: 400,
    Status.NOT_SCHEDULED: 400,
    Status.WRONG_TRANSACTION: 400,
    Status.NO_SUCH_WORKITEM: 404,
    Status.DELETED: 410,
}


class BadBodyError(Exception):
    """The body cannot be used; ``status`` is the HTTP status, and the text says why without quoting it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def body(request: Request, *, optional: bool = False) -> Json:
    """Return the one data set of a request.

    Raises:
        BadBodyError: it is of another media type, too large, or no data set.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BYTES:
            raise BadBodyError(413, f"a workitem has at most {MAX_BYTES} bytes")
    kind = media_type(request.headers.get("content-type", ""))[0]
    if optional and not content:
        return {}
    if kind not in {JSON, "application/json"}:
        raise BadBodyError(415, f"send {JSON}")
    return read(bytes(content))


def read(content: bytes) -> Json:
    """Return one data set, spelt as this node spells it.

    Raises:
        BadBodyError: it is none.
    """
    try:
        document = from_json(content, allow_inf_nan=False)
        if isinstance(document, list):
            (document,) = document
        dataset = Dataset.from_json(document, bulk_data_uri_handler=lambda _uri: None)
        written: Json = dataset.to_json_dict(bulk_data_threshold=MAX_BYTES, suppress_invalid_tags=False)
        # A workitem stands beside others in answers: one that is not strict JSON would spoil all of them.
        from_json(to_json(written), allow_inf_nan=False)
        if depth(written) > MAX_DEPTH:
            raise ValueError("sequences are nested too deep")  # noqa: TRY301 - ends like all that is wrong with it
    # pydicom promises no set of exceptions for what is not the DICOM JSON model.
    except Exception as error:
        raise BadBodyError(400, "the body is not one data set in the DICOM JSON model") from error
    return written


def refusal(error: WorkitemRefused, codes: dict[Status, int] | None = None) -> Response:
    """Answer with the HTTP status of a refusal and the ``Warning`` of PS3.18."""
    known = {**_CODES, **(codes or {})}
    status = known.get(Status(error.status), 409)
    return PlainTextResponse(str(error), status, {"Warning": warning(str(error))})


def warning(words: str) -> str:
    """Spell a Warning header (PS3.18 chapter 11)."""
    return f"299 {SERVICE}: {words.rstrip('.')}."
