"""Decoding of single JPEG, JPEG-LS and JPEG 2000 frames, each in a child process (`alnnode.imaging.codec_process`).

These codecs are native code, and damaged codestreams make some of them end their process: GDCM 3.2.6 calls ``abort`` for two of a hundred.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options

from alnnode.process.request_processes import LostProcessError, RequestProcesses

if TYPE_CHECKING:
    import numpy.typing as npt
    from pydicom import Dataset

log = structlog.get_logger()

# pydicom's decoding plugins, in the order in which they are tried. The order is fixed, so that another installed package changes no result.
_JPEG, _JPEG_LS, _JPEG_2000 = ("pillow", "pylibjpeg"), ("pyjpegls",), ("pillow", "pylibjpeg")
_LOSSLESS = ("pylibjpeg", "gdcm")  # without the extra "libjpeg", pylibjpeg is not available for it
PLUGINS: dict[str, tuple[str, ...]] = {
    uid.JPEGBaseline8Bit: _JPEG,
    uid.JPEGExtended12Bit: _JPEG,  # Pillow decodes 8 bits only
    uid.JPEGLossless: _LOSSLESS,
    uid.JPEGLosslessSV1: _LOSSLESS,
    # CharLS takes a third of the time of libjpeg (27 against 76 ms for 512 x 512 on one busy core).
    uid.JPEGLSLossless: _JPEG_LS,
    uid.JPEGLSNearLossless: _JPEG_LS,
    uid.JPEG2000Lossless: _JPEG_2000,
    uid.JPEG2000: _JPEG_2000,
    uid.HTJ2K: ("pylibjpeg",),
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
}
EXTRA = "libjpeg"  # the extra of this package that installs pylibjpeg-libjpeg (GPL-3.0)
_MOST = 8  # child processes


def installed(syntax: str) -> tuple[str, ...]:
    """Return the installed plugins for a transfer syntax of `PLUGINS`, in the order in which they are tried."""
    available = get_decoder(syntax).available_plugins
    found = tuple(name for name in PLUGINS[syntax] if name in available)
    # A lossless image that one codec refuses is damaged: another codec may give wrong pixels for it.
    return found[:1] if PLUGINS[syntax] is _LOSSLESS else found


def decodes_12_bits() -> bool:
    """Return whether lossy JPEG with 12 bits can be decoded (ITU-T T.81, extended sequential process)."""
    return "pylibjpeg" in installed(uid.JPEGExtended12Bit)


def decode_frame(codestream: bytes, image: Dataset, syntax: str, *, raw: bool) -> npt.NDArray[Any]:
    """Decode one frame to (rows, columns) or (rows, columns, samples).

    Args:
        codestream: of the frame.
        image: data set with the attributes that describe the pixels (PS3.3 C.7.6.3).
        syntax: Transfer Syntax UID of `PLUGINS`.
        raw: do not convert YBR to RGB.

    Raises:
        RuntimeError: the frame is damaged, or ended its process.
        ServiceError: no process can be started.
    """
    options = {key: value for key, value in as_pixel_options(image, number_of_frames=1).items() if key != "extended_offsets"}
    asked = {"syntax": str(syntax), "plugins": installed(syntax), "raw": raw, "options": options}
    try:
        answer = _processes(os.getpid()).ask([json.dumps(asked, default=str).encode(), b"\n", codestream])
    except LostProcessError as error:
        log.warning("codec_process_lost", transfer_syntax=str(syntax), signal=error.signal)
        raise RuntimeError("the codec ended its process") from None
    return _array(answer)


def _array(answer: bytearray) -> npt.NDArray[Any]:
    end = answer.index(b"\n")
    said = json.loads(answer[:end])
    if not said:
        raise RuntimeError("the codec refused the frame")
    kind = np.dtype(said["dtype"])
    if kind.kind not in "iuf":
        raise RuntimeError("the codec gave no numbers")
    return np.frombuffer(answer, kind, offset=end + 1).reshape(said["shape"])


@cache
def _processes(_pid: int) -> RequestProcesses:
    """Return the codec processes of this process; a forked process must not write into the pipes of its parent."""
    return RequestProcesses("alnnode.imaging.codec_process", min(_MOST, len(os.sched_getaffinity(0))))
