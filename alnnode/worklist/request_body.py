"""Read data sets in the DICOM JSON model (PS3.18 Annex F) from the bodies of requests to the worklist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json
from pydicom import Dataset

from alnnode.dicomweb.dicom_json import MAX_DEPTH, depth
from alnnode.http.openapi_operation import DICOM_JSON
from alnnode.multipart import media_type

if TYPE_CHECKING:
    from starlette.requests import Request

    from alnnode.worklist.ups import Json

MAX_BYTES = 256 << 10


class InvalidBodyError(Exception):
    """The body is not valid; ``status`` is the HTTP status, and the text says why without any content of the body."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def read_data_set(request: Request, *, optional: bool = False) -> Json:
    """Return the data set in the body of a request; an empty one if the body is empty and ``optional``.

    Raises:
        InvalidBodyError: the body has another media type, is too large, or is not one data set.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BYTES:
            raise InvalidBodyError(413, f"the body of a workitem must not exceed {MAX_BYTES} bytes")
    kind = media_type(request.headers.get("content-type", ""))[0]
    if optional and not content:
        return {}
    if kind not in {DICOM_JSON, "application/json"}:
        raise InvalidBodyError(415, f"send {DICOM_JSON}")
    return parse_data_set(bytes(content))


def parse_data_set(content: bytes) -> Json:
    """Return one data set, normalised to the form that this node writes.

    Raises:
        InvalidBodyError: the content is not one data set.
    """
    try:
        document = from_json(content, allow_inf_nan=False)
        if isinstance(document, list):
            (document,) = document
        dataset = Dataset.from_json(document, bulk_data_uri_handler=lambda _uri: None)
        written: Json = dataset.to_json_dict(bulk_data_threshold=MAX_BYTES, suppress_invalid_tags=False)
        # Search responses contain many workitems: one that is not strict JSON would make the whole response invalid.
        from_json(to_json(written), allow_inf_nan=False)
        if depth(written) > MAX_DEPTH:
            raise ValueError("too many nested sequences")  # noqa: TRY301 - the handler below handles every fault alike
    # pydicom does not document which exceptions it raises for data that are not in the DICOM JSON model.
    except Exception as error:
        raise InvalidBodyError(400, "the body is not one data set in the DICOM JSON model") from error
    return written
