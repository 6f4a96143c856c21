"""Axillary lymph nodes: where they are, how large they are, on which side."""

from __future__ import annotations

from alnnode.locate.chest_anatomy import Site
from alnnode.locate.search import find, numbered

__all__ = ["Site", "find", "numbered"]
