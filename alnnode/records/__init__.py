"""The types that the packages exchange: immutable, without input or output; they import no other package of alnnode.

Coordinates. *Voxel* coordinates are ``(k, j, i)`` = (slice, row, column) of a `Volume`, with integers at voxel centres.
*Patient* coordinates are millimetres in the DICOM patient system (LPS: +x to the patient's left, +y to the back, +z to the
head; PS3.3 C.7.6.2.1.1). *Image* coordinates are ``(column, row)`` as in SCOORD (PS3.3 C.18.6.1.2): there the centre
of the top left pixel is (0.5, 0.5), so image = voxel + 0.5.
"""

from typing import TYPE_CHECKING

from alnnode.records.classified import (
    LEAST_RAISED,
    Crop,
    CropGeometry,
    CropPair,
    Finding,
    Heatmap,
    Interval,
    ModelIdentity,
    OperatingPoint,
    Prediction,
)
from alnnode.records.images import Box, SliceRef, Volume
from alnnode.records.marks import MARK_STORAGE, Concept, Drawing, Mark, MarkKind, MarkObject, MarkShape, MaskPlane
from alnnode.records.nodes import Attenuation, AxillaCoverage, Axis, Level, Node, NodeSource, Side
from alnnode.records.results import (
    Analysis,
    CaptureForm,
    JobState,
    Locate,
    MapFrames,
    ObjectRole,
    ReportContext,
    ReportOptions,
    ResultObject,
    ResultReference,
    SRClass,
)

if TYPE_CHECKING:
    from alnnode.records.arrays import AffineMatrix as AffineMatrix
    from alnnode.records.arrays import FloatArray as FloatArray
    from alnnode.records.arrays import HounsfieldArray as HounsfieldArray

__all__ = [
    "LEAST_RAISED",
    "MARK_STORAGE",
    "Analysis",
    "Attenuation",
    "AxillaCoverage",
    "Axis",
    "Box",
    "CaptureForm",
    "Concept",
    "Crop",
    "CropGeometry",
    "CropPair",
    "Drawing",
    "Finding",
    "Heatmap",
    "Interval",
    "JobState",
    "Level",
    "Locate",
    "MapFrames",
    "Mark",
    "MarkKind",
    "MarkObject",
    "MarkShape",
    "MaskPlane",
    "ModelIdentity",
    "Node",
    "NodeSource",
    "ObjectRole",
    "OperatingPoint",
    "Prediction",
    "ReportContext",
    "ReportOptions",
    "ResultObject",
    "ResultReference",
    "SRClass",
    "Side",
    "SliceRef",
    "Volume",
]
