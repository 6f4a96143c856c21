"""The nouns that travel between rooms: frozen, without input or output.

Coordinates. *Voxel* coordinates are ``(k, j, i)`` = (slice, row, column) of a `Volume`, with integers at voxel centres.
*Patient* coordinates are millimetres in the DICOM patient system (LPS: +x to the patient's left, +y to the back, +z to the
head; PS3.3 C.7.6.2.1.1). *Image* coordinates are ``(column, row)`` as in SCOORD (PS3.3 C.18.6.1.2): there the centre
of the top left pixel is (0.5, 0.5), so image = voxel + 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    import numpy.typing as npt
    from pydicom import Dataset

    from alnnode.comparison import Comparison, Earlier
    from alnnode.locate.site import Site

    FloatArray = npt.NDArray[np.float32]
    HounsfieldArray = npt.NDArray[np.int16]
    AffineMatrix = npt.NDArray[np.float64]


class Side(StrEnum):
    """The patient's side (never the viewer's)."""

    LEFT = "left"
    RIGHT = "right"


class Level(StrEnum):
    """Axillary level: lateral to, behind, medial to the pectoralis minor."""

    I = "I"  # noqa: E741 - the field's own name
    II = "II"
    III = "III"


class NodeSource(StrEnum):
    """Who located a node."""

    ALGORITHM = "algorithm"
    READER = "reader"
    TRUTH = "truth"


class JobState(StrEnum):
    """The way of a job: RECEIVING, READY, RUNNING, ANALYSED, DELIVERED; or an end with a reason."""

    RECEIVING = "RECEIVING"
    READY = "READY"
    RUNNING = "RUNNING"
    ANALYSED = "ANALYSED"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"  # no route asks for this series: an end, not a failure


class ObjectRole(StrEnum):
    """What a result object is."""

    SR = "sr"
    CAPTURE = "capture"
    SEGMENTATION = "seg"
    PARAMETRIC_MAP = "pmap"
    KEY_OBJECTS = "ko"
    PRESENTATION_STATE = "pr"
    RESULTS_TREE = "tree"


class Crop(StrEnum):
    """The two crops of the method: fixed-size and adjustable-square."""

    FSC = "fsc"
    ASC = "asc"


@dataclass(frozen=True, slots=True)
class SliceRef:
    """Where one slice of a volume comes from."""

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None  # 1-based within a multi-frame instance, None for single-frame ones
    position: tuple[float, float, float]  # Image Position (Patient), mm LPS
    rescale: tuple[float, float] = (1.0, 0.0)  # slope and intercept from stored values to HU
    image_number: int | None = None  # Instance Number, or the frame's number: what a viewer shows; never used for sorting


@dataclass(frozen=True, slots=True)
class Volume:
    """A CT series as one regular grid in the source's own pixel raster.

    Attributes:
        voxels: HU, shape (slices, rows, columns), C-contiguous int16; slices ordered from the feet to the head.
        affine: 4x4, maps (k, j, i, 1) to patient millimetres (LPS). A gantry tilt is a shear in it.
        slices: one reference per slice, in the order of ``voxels``.
        header: data set of the first instance without pixel data: the patient, study and equipment
            attributes that result objects copy.
        spacing: (slice, row, column) distances in mm; the slice distance is along the normal.
        slice_thickness: nominal, mm; None when the source does not say.
        notes: what a reader of the report should know of the geometry ("gantry tilt 12 degrees").
    """

    voxels: HounsfieldArray
    affine: AffineMatrix
    slices: tuple[SliceRef, ...]
    header: Dataset
    spacing: tuple[float, float, float]
    slice_thickness: float | None = None
    notes: tuple[str, ...] = ()

    def patient_point(self, k: float, j: float, i: float) -> tuple[float, float, float]:
        """Return the patient coordinates (mm, LPS) of a voxel position."""
        a = self.affine
        x, y, z = (float(a[r, 0] * k + a[r, 1] * j + a[r, 2] * i + a[r, 3]) for r in range(3))
        return x, y, z


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open voxel box: k0 <= k < k1 and so on."""

    k0: int
    j0: int
    i0: int
    k1: int
    j1: int
    i1: int

    @property
    def low(self) -> tuple[int, int, int]:
        """First voxel (k, j, i)."""
        return self.k0, self.j0, self.i0

    @property
    def high(self) -> tuple[int, int, int]:
        """One past the last voxel (k, j, i)."""
        return self.k1, self.j1, self.i1

    @property
    def centre(self) -> tuple[float, float, float]:
        """Centre in voxel coordinates (k, j, i)."""
        return (self.k0 + self.k1 - 1) / 2, (self.j0 + self.j1 - 1) / 2, (self.i0 + self.i1 - 1) / 2


@dataclass(frozen=True, slots=True)
class Axis:
    """A measured diameter on one slice; the ends are image coordinates (column, row)."""

    start: tuple[float, float]
    end: tuple[float, float]
    length_mm: float


@dataclass(frozen=True, slots=True)
class Attenuation:
    """Statistics of the voxels inside a node, HU."""

    mean: float
    maximum: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Node:
    """One axillary lymph node (or candidate that passed as one).

    Attributes:
        number: 1-based, in the order of the report.
        box: bounding box in voxels.
        slice_index: k of the representative slice (largest cross-section), on which contour and axes lie.
        contour: outline on that slice in image coordinates (column, row), not closed (first point not repeated).
        score: confidence of the detector, 0 to 1; 1.0 for a node that a person marked.
        hilum_fraction: part of the volume that is fat of the hilum, 0 to 1; None where no hilum can be told.
        cortex_mm: thickness of the cortex beside that hilum.
        mask: the node's voxels, of the box's shape; None when only the outline is known.
    """

    number: int
    box: Box
    side: Side
    slice_index: int
    contour: tuple[tuple[float, float], ...]
    long_axis: Axis
    short_axis: Axis
    attenuation: Attenuation
    volume_mm3: float
    score: float = 1.0
    source: NodeSource = NodeSource.ALGORITHM
    level: Level | None = None
    tracking_uid: str | None = None  # of the reader's mark, or of the same node in an earlier report
    hilum_fraction: float | None = None
    cortex_mm: float | None = None
    mask: npt.NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)


class MarkKind(StrEnum):
    """Kinds of objects in which a reader's marks come."""

    REPORT = "sr"
    STRUCTURES = "rtstruct"
    SEGMENTATION = "seg"
    PRESENTATION = "pr"
    KEY_OBJECTS = "ko"


# PS3.4 Table B.5-1. Read by the room that locates and by the one that receives.
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


class Shape(StrEnum):
    """How a mark is drawn, and which points describe it."""

    POINT = "point"  # one or more places inside
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
        points: image coordinates (column, row); or patient coordinates (x, y, z), mm, where there is a frame of reference.
        sop_instance_uid: the image it lies on; empty when only the patient coordinates are given.
        frame_number: 1-based; None for a single-frame image.
        frame_of_reference: its UID; empty for image coordinates.
    """

    shape: Shape
    points: tuple[tuple[float, ...], ...]
    sop_instance_uid: str = ""
    frame_number: int | None = None
    frame_of_reference: str = ""


@dataclass(frozen=True, slots=True)
class MaskPlane:
    """One frame of a segment, cut to what is set in it.

    Attributes:
        pixels: shape (rows, columns).
        origin: patient coordinates of the centre of ``pixels[0, 0]``, mm.
        along_rows: from one row to the next, mm; ``along_columns`` from one column to the next.
        frame_of_reference: its UID.
    """

    pixels: npt.NDArray[np.bool_] = field(compare=False, repr=False)
    origin: tuple[float, float, float]
    along_rows: tuple[float, float, float]
    along_columns: tuple[float, float, float]
    frame_of_reference: str


@dataclass(frozen=True, slots=True)
class Concept:
    """A coded value as it stands in an object; a text has an empty code and scheme, and is the meaning."""

    code: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that a reader marked, as its object says it.

    Attributes:
        source_uid: SOP Instance UID of the object.
        number: 1-based place within the object.
        series_uids: of the images that the object refers to.
        tracking_uid: (0062,0021) or TID 1500's (112040, DCM); None where there is none.
        label: what it is called: free text, the finding's meaning, an ROI's or a segment's name.
        finding: the coded finding or type; ``site`` where it is.
        side: the laterality that is stated.
        evaluations: other statements on it (name, value), such as a class.
        segment: (SOP Instance UID, segment number) of a segment in another object that is its geometry.
        created: "YYYYMMDDhhmmss" of the object, as far as it says: which of two versions is the newer.
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

    @property
    def frames_of_reference(self) -> frozenset[str]:
        """Frames of reference in which it has patient coordinates."""
        named = {drawing.frame_of_reference for drawing in self.drawings} | {plane.frame_of_reference for plane in self.planes}
        return frozenset(named - {""})


@dataclass(frozen=True, slots=True)
class MarkObject:
    """What one object holds of marks. ``remarks`` say, free of patient data, what was left out and why.

    ``own`` objects were made by this software: results, not marks.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    marks: tuple[Mark, ...] = ()
    remarks: tuple[str, ...] = ()
    own: bool = False


@dataclass(frozen=True, slots=True)
class AxillaCoverage:
    """How much of one axilla the series shows."""

    side: Side
    covered: bool
    remark: str = ""  # e.g. "cut off at the side of the field of view"


@dataclass(frozen=True, slots=True)
class CropGeometry:
    """A square crop of one slice: pure geometry, invertible.

    The crop's pixel (v, u) (row, column; integers at pixel centres) shows the voxel position
    ``(slice_index, top + v * step_row, left + u * step_column)``.
    """

    kind: Crop
    slice_index: int
    top: float
    left: float
    step_row: float
    step_column: float
    size: int  # pixels along each side


@dataclass(frozen=True, slots=True)
class CropPair:
    """What the two networks see of one node.

    ``fsc`` and ``asc`` have shape (channels, size, size), float32, scaled as the bundle's crop settings say.
    """

    fsc: FloatArray
    asc: FloatArray
    fsc_geometry: CropGeometry
    asc_geometry: CropGeometry


@dataclass(frozen=True, slots=True)
class Prediction:
    """Probability of metastasis, 0 to 1: of the ensemble, and of each member by crop."""

    probability: float
    members: dict[Crop, float]


@dataclass(frozen=True, slots=True)
class Heatmap:
    """Grad-CAM of one member on one node: values 0 to 1, shape (size, size) in crop pixels."""

    crop: Crop
    values: FloatArray
    geometry: CropGeometry


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Threshold on the ensemble probability, with what it was measured to give and on what.

    The figures are None at a threshold that the site set itself: nobody measured them there.
    """

    threshold: float
    sensitivity: Interval | None
    specificity: Interval | None
    data_set: str  # "held-out synthetic phantoms, n = 480 nodes"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model said so: all of it is written into every result object."""

    name: str
    version: str
    digest: str  # sha256 of the manifest, hex
    demonstration: bool
    training_data: str
    operating_point: OperatingPoint
    manufacturer: str = "alnnode"

    @property
    def banner(self) -> str:
        """The words that every capture, report and series description carries."""
        if self.demonstration:
            return "DEMONSTRATION MODEL - SYNTHETIC TRAINING DATA - NOT FOR CLINICAL USE"
        return "RESEARCH USE ONLY"


@dataclass(frozen=True, slots=True)
class Finding:
    """A node with what the ensemble says of it and why."""

    node: Node
    prediction: Prediction
    heatmaps: tuple[Heatmap, ...]
    crops: CropPair

    def suspicious(self, operating_point: OperatingPoint) -> bool:
        """Whether the probability reaches the operating point."""
        return self.prediction.probability >= operating_point.threshold


@dataclass(frozen=True, slots=True)
class Analysis:
    """What came out of one series.

    ``not_analysed`` is None, or the reason (then there are no findings and ``volume`` may be None). ``remarks`` say what was
    not made of the reader's marks. ``more_found``: there were more nodes than the settings allow, and the least certain are
    not among the findings. ``surface`` and ``comparison`` are there when `alnnode.follow_up` was asked: points on the
    chest cavity (mm, LPS), and how the nodes changed. ``site`` is the chest as it was found, for who needs it again.
    """

    header: Dataset  # as in Volume.header
    model: ModelIdentity
    volume: Volume | None
    findings: tuple[Finding, ...] = ()
    coverage: tuple[AxillaCoverage, ...] = ()
    not_analysed: str | None = None
    remarks: tuple[str, ...] = ()
    more_found: bool = False
    surface: tuple[tuple[float, float, float], ...] = ()
    comparison: Comparison | None = None
    site: Site | None = field(default=None, compare=False, repr=False)


class Locate(StrEnum):
    """Who locates the nodes of a series."""

    AUTO = "auto"  # the algorithm
    MARKS = "marks"  # the reader
    BOTH = "both"


class SRClass(StrEnum):
    """SOP class of the structured report: PS3.3 A.35.3 or A.35.13."""

    COMPREHENSIVE = "comprehensive"
    COMPREHENSIVE_3D = "comprehensive3d"


class CaptureForm(StrEnum):
    """Captures as one image each, or as the frames of one: PS3.3 A.8.1 or A.8.5."""

    SINGLE = "single"
    MULTIFRAME = "multiframe"


class MapFrames(StrEnum):
    """Slices that a parametric map has a frame for: those on which nodes were classified, or all of the series."""

    NODES = "nodes"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Which result objects are made, and in which form. The report and the captures always are."""

    sr_class: SRClass = SRClass.COMPREHENSIVE
    captures: CaptureForm = CaptureForm.SINGLE
    kinds: frozenset[ObjectRole] = frozenset()
    map_frames: MapFrames = MapFrames.NODES


@dataclass(frozen=True, slots=True)
class ReportContext:
    """What belongs to the job rather than to the series: identical on every re-run.

    Attributes:
        input_digest: sha256 (hex) over the sorted digests of the input instances.
        settings_digest: sha256 (hex) over the settings that change the result.
        created: the moment all dates and times inside the objects are taken from (DESIGN section 1).
        station: AE title of the node, written as Station Name.
        revision: 1 for the first result of a series, one more for each later input.
        predecessor: (SOP class UID, SOP instance UID, series UID, study UID) of the report this one replaces.
        window: (centre, width) in HU of the captures and of the presentation state.
        options: which objects, in which form.
        earlier: what was found of earlier results; None: the site follows nothing up.
    """

    input_digest: str
    settings_digest: str
    created: datetime
    station: str = "ALNNODE"
    revision: int = 1
    predecessor: tuple[str, str, str, str] | None = None
    window: tuple[float, float] = (40.0, 400.0)
    options: ReportOptions = ReportOptions()
    earlier: Earlier | None = None


@dataclass(frozen=True, slots=True)
class ResultObject:
    """One finished DICOM object, as bytes of a Part 10 file."""

    role: ObjectRole
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    data: bytes = field(repr=False)
