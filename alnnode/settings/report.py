"""Section ``[report]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from alnnode.records import CaptureForm, MapFrames, ObjectRole, ReportOptions, SRClass
from alnnode.settings.section import Section


class Report(Section):
    """Which result objects are made, and in which form. The structured report and the captures are always made."""

    profile: Literal["viewers", "air"] = "viewers"
    sr_class: SRClass = SRClass.COMPREHENSIVE
    captures: CaptureForm = CaptureForm.SINGLE
    compress_captures: bool = True
    kinds: tuple[Literal["seg", "pmap", "ko", "pr", "tree", "text", "pdf", "rtstruct", "reject"], ...] = ()
    map_frames: MapFrames = MapFrames.ALL
    character_set: Literal["source", "utf-8"] = "source"
    follow_up: Literal["off", "own", "archives"] = "own"
    prior_timeout: Annotated[float, Field(ge=1, le=600)] = 30  # s, for all archives together, before the analysis

    @property
    def options(self) -> ReportOptions:
        """Return these settings in the form that the report stage uses."""
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

    @property
    def in_results(self) -> dict[str, Any]:
        """Return the keys that change a result, in the form that `Settings.result_digest` has always used."""
        return {**self.model_dump(mode="json", exclude={"prior_timeout"}), "kinds": sorted(self.kinds)}
