"""pydicom's errors about nested sequences, made as short as other errors.

When an element cannot be written, pydicom 3.0 adds the text of the error and the whole traceback at every level of the sequences around it. The
text grows by a factor of 2.6 with each level: an object of 400 bytes with 12 levels took 1.2 GB and 5 s, one with 16 levels all memory.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from pydicom import dataset, filewriter

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pydicom.tag import BaseTag


def _unquoted(_tag: BaseTag) -> AbstractContextManager[None]:
    return nullcontext()


def stop() -> None:
    """Let errors pass through as they are; `tests/unit/imaging/test_optional_attributes.py` fails when a new pydicom moves what this replaces."""
    for module in (dataset, filewriter):
        assert hasattr(module, "tag_in_exception")
        module.tag_in_exception = _unquoted  # type: ignore[attr-defined]  # a module has what it imports
