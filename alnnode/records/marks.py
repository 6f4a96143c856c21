"""Marks of lymph nodes, as their DICOM objects state them: drawn by a reader, or by other software."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from alnnode.records.nodes import NodeSource

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from alnnode.records.nodes import Side


class MarkKind(StrEnum):
    """Kinds of DICOM objects that hold marks."""

    REPORT = "sr"
    STRUCTURES = "rtstruct"
    SEGMENTATION = "seg"
    PRESENTATION = "pr"
    KEY_OBJECTS = "ko"


# SOP classes of PS3.4 Table B.5-1 that the listener accepts as marks and that alnnode.locate reads.
MARK_STORAGE = {
    "1.2.840.10008.5.1.4.1.1.88.22": MarkKind.REPORT,  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33": MarkKind.REPORT,  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34": MarkKind.REPORT,  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.35": MarkKind.REPORT,  # Extensible SR
    "1.2.840.10008.5.1.4.1.1.88.59": MarkKind.KEY_OBJECTS,
    "1.2.840.10008.5.1.4.1.1.481.3": MarkKind.STRUCTURES,
    "1.2.840.10008.5.1.4.1.1.66.4": MarkKind.SEGMENTATION,
    "1.2.840.10008.5.1.4.1.1.66.7": MarkKind.SEGMENTATION,  # Label Map
    "1.2.840.10008.5.1.4.1.1.11.1": MarkKind.PRESENTATION,  # Grayscale
    "1.2.840.10008.5.1.4.1.1.11.2": MarkKind.PRESENTATION,  # Color
}


class MarkShape(StrEnum):
    """Shape of a graphic, and the points that describe it."""

    POINT = "point"  # one or more points inside
    LINE = "line"  # the two ends of a diameter
    AXES = "axes"  # the ends of the long axis, then those of the short axis
    BOX = "box"  # the four corners of an upright rectangle
    OUTLINE = "outline"  # a closed polygon, its first point not repeated
    CIRCLE = "circle"  # the centre, and a point of the perimeter (PS3.3 C.18.6.1.2)
    ELLIPSE = "ellipse"  # the ends of the major axis, then those of the minor one (PS3.3 C.18.6.1.2)


@dataclass(frozen=True, slots=True)
class Drawing:
    """One graphic of a mark.

    Attributes:
        points: image coordinates (column, row); or patient coordinates (x, y, z), mm.
        sop_instance_uid: the image that it is drawn on; empty when only patient coordinates are given.
        frame_number: 1-based; None for a single-frame image.
        frame_of_reference: Frame of Reference UID; empty for image coordinates, and when it is that of the image.
    """

    shape: MarkShape
    points: tuple[tuple[float, ...], ...]
    sop_instance_uid: str = ""
    frame_number: int | None = None
    frame_of_reference: str = ""


@dataclass(frozen=True, slots=True)
class MaskPlane:
    """One frame of a segment, cropped to its pixels.

    Attributes:
        pixels: shape (rows, columns).
        origin: patient coordinates of the centre of ``pixels[0, 0]``, mm.
        along_rows: vector from one row to the next, mm; ``along_columns`` from one column to the next.
        frame_of_reference: its UID.
    """

    pixels: npt.NDArray[np.bool_] = field(compare=False, repr=False)
    origin: tuple[float, float, float]
    along_rows: tuple[float, float, float]
    along_columns: tuple[float, float, float]
    frame_of_reference: str


@dataclass(frozen=True, slots=True)
class Concept:
    """A coded value of an object. A free text has an empty code and scheme, and is the meaning."""

    code: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark, as its object states it.

    Attributes:
        source_uid: SOP Instance UID of the object.
        number: 1-based position within the object.
        series_uids: of the images that the object refers to.
        tracking_uid: (0062,0021) or TID 1500's (112040, DCM); None where there is none.
        label: its name: free text, the meaning of the finding, or the name of an ROI or segment.
        finding: the coded finding or type; ``site`` the coded anatomical site.
        side: the stated laterality.
        evaluations: other statements on it (name, value).
        segment: (SOP Instance UID, segment number) of a segment in another object that gives its geometry.
        created: date and time of the object, "YYYYMMDDhhmmss"; orders its versions; empty when unknown.
        author: who drew it (`alnnode.locate.marks.authors`); a reader where the object does not state it.
    """

    source_uid: str
    number: int
    series_uids: tuple[str, ...] = ()
    tracking_uid: str | None = None
    tracking_identifier: str = ""
    drawings: tuple[Drawing, ...] = ()
    planes: tuple[MaskPlane, ...] = ()
    label: str = ""
    finding: Concept | None = None
    site: Concept | None = None
    side: Side | None = None
    evaluations: tuple[tuple[Concept, Concept], ...] = ()
    segment: tuple[str, int] | None = None
    created: str = ""
    author: NodeSource = NodeSource.READER

    @property
    def frames_of_reference(self) -> frozenset[str]:
        """Frame of Reference UIDs of its patient coordinates."""
        named = {drawing.frame_of_reference for drawing in self.drawings} | {plane.frame_of_reference for plane in self.planes}
        return frozenset(named - {""})


@dataclass(frozen=True, slots=True)
class MarkObject:
    """The marks of one object.

    ``remarks`` state, without patient data, which marks were left out and why. ``own``: this software made the object, so its content is a
    result, not a mark.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    marks: tuple[Mark, ...] = ()
    remarks: tuple[str, ...] = ()
    own: bool = False
