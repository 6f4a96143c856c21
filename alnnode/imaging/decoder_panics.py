"""Panics of decoders written in Rust (pylibjpeg-rle) on damaged input."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def caught() -> Iterator[None]:
    """Raise a RuntimeError in place of a panic, which is a BaseException and would pass every handler for damaged input."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # its class cannot be imported
            raise
        raise RuntimeError("a decoder gave up") from None
