"""The process that decodes frames for `alnnode.imaging.codecs`: ``python -m alnnode.imaging.codec_process``.

A request is a line of JSON and the codestream; an answer is a line of JSON and the pixels. Neither is unpickled.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from alnnode.process.request_processes import RequestLimits, answer_requests

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

LIMITS = RequestLimits(seconds=120, memory=4 << 30)


def decoded(request: bytes) -> Sequence[bytes]:
    """Return the answer to a request: the pixels, or an empty object if no plugin decodes the frame."""
    head, _, codestream = request.partition(b"\n")
    asked = json.loads(head)
    for plugin in asked["plugins"]:
        try:
            array = np.ascontiguousarray(_decode(asked, plugin, codestream))
        except Exception:  # noqa: BLE001, S112 - codecs raise exceptions of any class for damaged input, and the next one may succeed
            continue
        return [json.dumps({"dtype": array.dtype.str, "shape": array.shape}).encode(), b"\n", array.tobytes()]
    return [b"{}\n"]


def _decode(asked: dict[str, Any], plugin: str, codestream: bytes) -> npt.NDArray[Any]:
    options: dict[str, Any] = {**asked["options"], "pixel_keyword": "PixelData", "raw": asked["raw"], "decoding_plugin": plugin}
    return get_decoder(asked["syntax"]).as_array(encapsulate([codestream]), index=0, **options)[0]


if __name__ == "__main__":
    answer_requests(decoded, LIMITS)
