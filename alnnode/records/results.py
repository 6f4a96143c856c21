"""A job, what came out of it, and the objects that tell it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from pydicom import Dataset

    from alnnode.locate.chest_anatomy import Site
    from alnnode.records.classified import Finding, ModelIdentity
    from alnnode.records.comparison import Comparison, Earlier
    from alnnode.records.images import Volume
    from alnnode.records.nodes import AxillaCoverage


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
    REJECTION = "reject"
    TEXT = "text"
    PDF = "pdf"


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
    map_frames: MapFrames = MapFrames.ALL
    compressed: bool = True  # captures in JPEG-LS Lossless
    measurement_root: bool = False  # of the results tree: TID 1500 instead of TID 2000
    unicode: bool = False  # results in ISO_IR 192, whatever the character set of the source


class ResultReference(NamedTuple):
    """A result object of an earlier report."""

    role: ObjectRole
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True)
class ReportContext:
    """What belongs to the job rather than to the series: identical on every re-run.

    Attributes:
        input_digest: sha256 (hex) over the sorted digests of the input instances.
        settings_digest: sha256 (hex) over the settings that change the result.
        created: the moment all dates and times inside the objects are taken from (DESIGN section 1); aware, or in the source's own time.
        station: AE title of the node, written as Station Name.
        revision: 1 for the first result of a series, one more for each later input.
        predecessor: (SOP class UID, SOP instance UID, series UID, study UID) of the report this one replaces.
        window: (centre, width) in HU of the captures and of the presentation state.
        options: which objects, in which form.
        earlier: what was found of earlier results; None: the site follows nothing up.
        superseded: result objects of this series that these replace, the oldest first.
        zone: of the site, for sources that do not tell their offset from UTC; None: the site does not tell it either.
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
    superseded: tuple[ResultReference, ...] = ()
    zone: tzinfo | None = None


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
