"""Decoders written in Rust (RLE, by way of pylibjpeg-rle) may panic over damaged input."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def caught() -> Iterator[None]:
    """Make a RuntimeError of a panic: it comes as a BaseException, which nobody who guards against bad input would catch."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # its class is in no module that could be imported
            raise
        raise RuntimeError("a decoder gave up") from None
