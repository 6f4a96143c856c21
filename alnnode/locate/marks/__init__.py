"""The reader's marks: DICOM objects in, `records.Mark` out; and from a mark to a `records.Node`.

Read are structured reports (TID 1500), RT Structure Sets, Segmentations and Grayscale or Color Softcopy Presentation States.
"""

from __future__ import annotations

from alnnode.locate.marks.nodes import Chart, gather, merge, nodes
from alnnode.locate.marks.reading import read, read_folder
from alnnode.records import MARK_STORAGE

__all__ = ["MARK_STORAGE", "Chart", "gather", "merge", "nodes", "read", "read_folder"]
