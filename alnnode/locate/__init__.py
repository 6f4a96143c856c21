"""Axillary lymph nodes: where they are, how large they are, on which side."""

from __future__ import annotations

from alnnode.locate.search import find, numbered
from alnnode.locate.site import Site

__all__ = ["Site", "find", "numbered"]
