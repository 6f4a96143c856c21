"""Description of one kind of result object. Each module that builds a kind defines its `ObjectKind` as ``KIND``.

The table of kinds is `alnnode.report.kinds`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

    from alnnode.records import Analysis, ObjectRole, ReportContext, ResultObject


class ObjectNature(StrEnum):
    """Which attributes an object copies from its source, and how other objects refer to it."""

    DOCUMENT = "document"  # Referenced Request Sequence (PS3.3 C.17.2)
    IMAGE = "image"  # lossy compression of the source (PS3.3 C.7.6.1.1.5); reports refer to it by IMAGE items
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """One kind of result object.

    Attributes:
        role: its name in settings, database and file names.
        content: in its Series Description: "masks".
        series_place: added to its Series Number; unique.
        nature: how it is treated beside its own modules.
        code: concept name of references to it; None: no report refers to it.
        content_date: its IOD has Content Date and Content Time; otherwise the module sets the dates that its IOD has.
    """

    role: ObjectRole
    content: str
    series_place: int
    nature: ObjectNature
    code: Code | None = None
    content_date: bool = True


class ObjectModule(Protocol):
    """A module that builds one kind of result object."""

    @property
    def KIND(self) -> ObjectKind:  # noqa: N802 - a constant of the module
        """The kind."""

    def build(self, analysis: Analysis, context: ReportContext) -> list[ResultObject]:
        """Return the objects of this kind; none where the analysis has nothing for it."""
