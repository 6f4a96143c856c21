"""A job, its analysis, and the result objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from pydicom import Dataset

    from alnnode.records.classified import Finding, ModelIdentity
    from alnnode.records.comparison import Comparison, PriorLookup
    from alnnode.records.images import Volume
    from alnnode.records.nodes import AxillaCoverage


class JobState(StrEnum):
    """State of a job: RECEIVING, READY, RUNNING, ANALYSED, DELIVERED; or NOT_ANALYSED, FAILED or SKIPPED with a reason."""

    RECEIVING = "RECEIVING"
    READY = "READY"
    RUNNING = "RUNNING"
    ANALYSED = "ANALYSED"
    DELIVERED = "DELIVERED"
    NOT_ANALYSED = "NOT_ANALYSED"  # the images do not allow the analysis
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"  # no route selects this series


class ObjectRole(StrEnum):
    """Kind of a result object."""

    SR = "sr"
    CAPTURE = "capture"
    SEGMENTATION = "seg"
    PARAMETRIC_MAP = "pmap"
    KEY_OBJECTS = "ko"
    PRESENTATION_STATE = "pr"
    RESULTS_TREE = "tree"
    REJECTION = "reject"
    TEXT = "text"
    PDF = "pdf"
    STRUCTURE_SET = "rtstruct"


@dataclass(frozen=True, slots=True)
class Analysis:
    """The result of the analysis of one series.

    Attributes:
        header: as `Volume.header`.
        model: the bundle that classified the nodes.
        volume: the series; None when it could not be read.
        findings: the nodes with their probabilities.
        coverage: how much of each axilla the series shows; empty when the algorithm did not search.
        not_analysed: None, or the reason why the series was not analysed; then there are no findings.
        remarks: the marks that were not used, and why.
        more_found: more nodes were found than the settings allow, and the least certain are not among the findings.
        surface: points on the surface of the chest cavity (mm, LPS) for later comparisons; empty without follow-up.
        comparison: how the nodes changed since the prior report; None when nothing was compared.
        min_short_axis_mm: the algorithm does not report nodes with a smaller short axis.
    """

    header: Dataset
    model: ModelIdentity
    volume: Volume | None
    findings: tuple[Finding, ...] = ()
    coverage: tuple[AxillaCoverage, ...] = ()
    not_analysed: str | None = None
    remarks: tuple[str, ...] = ()
    more_found: bool = False
    surface: tuple[tuple[float, float, float], ...] = ()
    comparison: Comparison | None = None
    min_short_axis_mm: float = 0.0


class Locate(StrEnum):
    """What locates the nodes of a series."""

    AUTO = "auto"  # the algorithm
    MARKS = "marks"  # marks of readers or other software
    BOTH = "both"


class SRClass(StrEnum):
    """SOP class of the structured report: PS3.3 A.35.3 or A.35.13."""

    COMPREHENSIVE = "comprehensive"
    COMPREHENSIVE_3D = "comprehensive3d"


class CaptureForm(StrEnum):
    """Captures as single-frame images, or as the frames of one multi-frame image: PS3.3 A.8.1 or A.8.5."""

    SINGLE = "single"
    MULTIFRAME = "multiframe"


class MapFrames(StrEnum):
    """Slices that have a frame in a parametric map: those on which nodes were classified, or all slices of the series."""

    NODES = "nodes"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Which result objects are written, and in which form. The report and the captures are always written."""

    sr_class: SRClass = SRClass.COMPREHENSIVE
    captures: CaptureForm = CaptureForm.SINGLE
    kinds: frozenset[ObjectRole] = frozenset()
    map_frames: MapFrames = MapFrames.ALL
    compressed: bool = True  # captures in JPEG-LS Lossless
    measurement_root: bool = False  # root of the results tree: TID 1500 instead of TID 2000
    unicode: bool = False  # results in ISO_IR 192, whatever the character set of the source


class ResultReference(NamedTuple):
    """Reference to a result object of an earlier analysis of the series."""

    role: ObjectRole
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True)
class ReportContext:
    """Properties of the job that its result objects depend on; identical each time the job runs.

    Attributes:
        input_digest: sha256 (hex) over the sorted digests of the input instances.
        settings_digest: sha256 (hex) over the settings that change the result.
        created: date and time that all objects state (DESIGN section 1); timezone-aware, or in the time zone of the source.
        station: AE title of the node, written as Station Name.
        revision: 1 for the first result of a series, incremented for each later input.
        predecessor: (SOP class UID, SOP instance UID, series UID, study UID) of the report that this one supersedes.
        window: (centre, width) in HU of the captures and of the presentation state.
        options: which objects are written, and in which form.
        prior: result of the search for a prior report; None: follow-up is off.
        superseded: result objects of this series that these supersede, the oldest first.
        zone: time zone of the site, for sources without offset from UTC; None: not configured.
    """

    input_digest: str
    settings_digest: str
    created: datetime
    station: str = "ALNNODE"
    revision: int = 1
    predecessor: tuple[str, str, str, str] | None = None
    window: tuple[float, float] = (40.0, 400.0)
    options: ReportOptions = ReportOptions()
    prior: PriorLookup | None = None
    superseded: tuple[ResultReference, ...] = ()
    zone: tzinfo | None = None


@dataclass(frozen=True, slots=True)
class ResultObject:
    """One finished DICOM object, as the bytes of a Part 10 file."""

    role: ObjectRole
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    data: bytes = field(repr=False)
