"""A bound on the length of pydicom's error messages about nested sequences.

When an element cannot be written, pydicom 3.0 adds the message and the whole traceback at every level of nesting. The message grows by a
factor of 2.6 with each level: an object of 400 bytes with 12 levels took 1.2 GB and 5 s; one with 16 levels took all memory.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from pydicom import dataset, filewriter

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pydicom.tag import BaseTag


def _unchanged(_tag: BaseTag) -> AbstractContextManager[None]:
    return nullcontext()


def install() -> None:
    """Replace the functions of pydicom that add to messages; test_optional_attributes.py fails when a new pydicom moves them."""
    for module in (dataset, filewriter):
        assert hasattr(module, "tag_in_exception")
        module.tag_in_exception = _unchanged  # type: ignore[attr-defined]  # a module has what it imports
