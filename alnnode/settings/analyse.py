"""Section ``[analysis]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from alnnode.records import Locate
from alnnode.settings.section import Section


class Analysis(Section):
    """What the worker does with a series."""

    bundle: str = "demo"  # "demo", or the folder of a model bundle
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=0, le=256)] = 0  # 0: one per core
    series_at_once: Annotated[int, Field(ge=1, le=16)] = 1  # that one process analyses while the queue is long
    time_limit: Annotated[float, Field(ge=30, le=604_800)] = 900  # s, after which an analysis is stopped
    locate: Locate = Locate.BOTH  # "auto": the algorithm; "marks": readers and other software
    detector_threshold: Annotated[float, Field(ge=0, le=1)] | None = None  # None: that of the bundle
    operating_point: Annotated[float, Field(gt=0, lt=1)] | None = None  # None: that of the bundle
    min_short_axis_mm: Annotated[float, Field(ge=2, le=30)] = 4
    max_nodes: Annotated[int, Field(ge=1, le=200)] = 40
    max_slice_spacing_mm: Annotated[float, Field(gt=0, le=10)] = 5
    window: tuple[float, Annotated[float, Field(ge=1)]] = (40, 400)  # Window Center and Width of captures, PS3.3 C.11.2.1.2
    # Results that only say that a series cannot be analysed: of each series; one of a study of which no series was analysed; or none.
    report_not_analysed: Literal["series", "study", "off"] = "study"

    @property
    def in_results(self) -> dict[str, Any]:
        """Return the keys that change a result, under the names and in the form that `Settings.result_digest` has always used."""
        values = self.model_dump(
            mode="json",
            exclude={"bundle", "device", "threads", "series_at_once", "time_limit", "report_not_analysed", "window"},
        )
        centre, width = self.model_dump(mode="json", include={"window"})["window"]
        return {**values, "window_center": centre, "window_width": width}
