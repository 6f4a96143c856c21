"""Sections on what is analysed, when, and what comes of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alnnode.records import CaptureForm, Locate, MapFrames, ObjectRole, ReportOptions, SRClass
from alnnode.settings.section import Pattern, Seconds, Section


class Route(Section):
    """Which series are analysed: all given conditions must hold; an empty list asks nothing."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
    modalities: tuple[str, ...] = ("CT",)
    calling_ae_titles: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    description: Pattern = ""  # regular expression searched in Series and Study Description, case ignored
    exclude_description: Pattern = ""
    kernel: Pattern = ""  # regular expression searched in Convolution Kernel
    min_slice_thickness: Annotated[float, Field(ge=0)] = 0
    max_slice_thickness: Annotated[float, Field(gt=0)] = 100

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.min_slice_thickness > self.max_slice_thickness:
            raise ValueError("min_slice_thickness is above max_slice_thickness; swap or correct them")
        return self


class Completion(Section):
    """When a series is complete (DESIGN section 4)."""

    announced_count: bool = True
    association_grace: Seconds = 5
    quiet: Seconds = 60
    sweep_interval: Seconds = 1


class Worklist(Section):
    """Which workitems of the worklist this node performs."""

    perform: bool = True
    # Scheduled Workitem Codes, "scheme:value": PS3.16 CID 9231 Computer Aided Detection and Diagnosis, and one of our own.
    codes: tuple[Annotated[str, Field(pattern=r"^[^:\\]{1,16}:[^\\]{1,16}$")], ...] = (
        "DCM:110004",
        "DCM:110003",
        "99ALNNODE:ANALYSE",
    )
    interval: Seconds = 0.5
    fetch_attempts: Annotated[int, Field(ge=1, le=100)] = 3


class Analysis(Section):
    """What the worker does with a series."""

    bundle: str = "demo"  # "demo", or the folder of a bundle
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=0, le=256)] = 0  # 0: one per core
    window_center: float = 40
    window_width: Annotated[float, Field(ge=1)] = 400  # PS3.3 C.11.2.1.2
    min_short_axis_mm: Annotated[float, Field(ge=2, le=30)] = 4
    max_slice_spacing_mm: Annotated[float, Field(gt=0, le=10)] = 5
    max_nodes: Annotated[int, Field(ge=1, le=200)] = 40
    locate: Locate = Locate.BOTH  # "auto": the algorithm; "marks": the reader
    detector_threshold: Annotated[float, Field(ge=0, le=1)] | None = None  # None: the bundle's own
    operating_point: Annotated[float, Field(gt=0, lt=1)] | None = None  # None: the bundle's own
    report_not_analysed: bool = True


class Report(Section):
    """Which result objects are made, and in which form. The report and the captures always are."""

    profile: Literal["viewers", "air"] = "viewers"
    sr_class: SRClass = SRClass.COMPREHENSIVE
    captures: CaptureForm = CaptureForm.SINGLE
    kinds: tuple[Literal["seg", "pmap", "ko", "pr", "tree", "text", "pdf", "reject"], ...] = ()
    map_frames: MapFrames = MapFrames.ALL
    compress_captures: bool = True
    character_set: Literal["source", "utf-8"] = "source"
    follow_up: Literal["off", "own", "archives"] = "own"
    prior_timeout: Annotated[float, Field(ge=1, le=600)] = 30  # s, for all archives together, before the analysis

    @property
    def options(self) -> ReportOptions:
        """The same for the room that writes the objects."""
        air = self.profile == "air"
        kinds = {ObjectRole(kind) for kind in self.kinds} | ({ObjectRole.RESULTS_TREE} if air else set())
        return ReportOptions(
            sr_class=SRClass.COMPREHENSIVE_3D if air else self.sr_class,
            captures=self.captures,
            kinds=frozenset(kinds),
            map_frames=self.map_frames,
            compressed=self.compress_captures,
            measurement_root=air,
            unicode=self.character_set == "utf-8",
        )
