"""The main job: the files of one series in, an `Analysis` out. No database, no network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from alnnode import locate
from alnnode.errors import NotAnalysable
from alnnode.imaging.crop import crops_for
from alnnode.imaging.series import read_header, read_volume
from alnnode.locate import marks as marks_room
from alnnode.model import saliency
from alnnode.records import Analysis, Finding, Locate, NodeSource, OperatingPoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from alnnode.locate.detector import Detector
    from alnnode.model.ensemble import Ensemble
    from alnnode.records import AxillaCoverage, MarkObject, ModelIdentity, Node, Volume
    from alnnode.settings import Analysis as AnalysisSettings


MAX_REMARKS = 20


class Progress(Protocol):
    """Told the name of each step as it begins; may raise to stop the analysis."""

    def __call__(self, step: str, /) -> object:
        """Hear that ``step`` begins; what is returned is ignored."""


def analyse(
    paths: Sequence[Path],
    ensemble: Ensemble,
    detector: Detector,
    settings: AnalysisSettings,
    progress: Progress = lambda _step: None,
    marks: Sequence[MarkObject] = (),
) -> Analysis:
    """Locate, classify and explain the axillary lymph nodes of one series.

    Args:
        paths: Part 10 files of one series, in any order.
        ensemble: the classifier.
        detector: the network that scores candidates.
        settings: the ``[analysis]`` section.
        progress: called with "read", "locate", "classify" and "explain".
        marks: what a reader marked, on this series or on others; ``settings.locate`` says whether it counts.

    Returns:
        The findings; a series that cannot be analysed gives ``not_analysed`` with the reason, never an exception.

    Raises:
        NotAnalysable: not even a header could be read from any of the files.
    """
    model = _identity(ensemble, settings)
    progress("read")
    try:
        volume = read_volume(paths, settings.max_slice_spacing_mm)
    except NotAnalysable as error:
        return Analysis(header=read_header(paths), model=model, volume=None, not_analysed=str(error))
    progress("locate")
    site = locate.Site(volume)
    located = _locate(site, detector, settings, marks)
    if located.not_analysed is not None:
        return Analysis(volume.header, model, volume, (), located.coverage, located.not_analysed, located.remarks)
    return replace(_examine(volume, model, ensemble, located, progress), site=site)


@dataclass(frozen=True, slots=True)
class _Located:
    nodes: tuple[Node, ...]
    coverage: tuple[AxillaCoverage, ...]
    not_analysed: str | None
    remarks: tuple[str, ...]
    more_found: bool


def _locate(site: locate.Site, detector: Detector, settings: AnalysisSettings, marks: Sequence[MarkObject]) -> _Located:
    """Find the nodes, or take them from the reader, or both."""
    volume = site.volume
    marked: list[Node] = []
    remarks: tuple[str, ...] = ()
    if settings.locate is not Locate.AUTO:
        marked, remarks = marks_room.nodes(volume, marks, chart=marks_room.Chart(site, detector.settings.levels))
        remarks = (*remarks[:MAX_REMARKS], *([f"and {len(remarks) - MAX_REMARKS} more"] if len(remarks) > MAX_REMARKS else []))
    if settings.locate is Locate.MARKS:
        reason = (
            None
            if marked
            else "; ".join(["the nodes of this series are taken from a reader's marks, and there are none", *remarks])
        )
        kept = tuple(locate.numbered(marked[: settings.max_nodes]))
        return _Located(kept, (), reason, remarks, len(marked) > len(kept))
    found, coverage = locate.find(
        volume,
        detector,
        min_short_axis_mm=settings.min_short_axis_mm,
        max_nodes=settings.max_nodes + 1,  # one more tells that some are left out
        threshold=settings.detector_threshold,
        site=site,
    )
    certain = sorted(marks_room.merge(marked, found), key=lambda node: (node.source is not NodeSource.READER, -node.score))
    nodes = tuple(locate.numbered(certain[: settings.max_nodes]))
    reason = None
    if not nodes and not any(side.shown for side in coverage):
        reason = "neither axilla is within these images: " + "; ".join(f"{side.side}: {side.remark}" for side in coverage)
    return _Located(nodes, coverage, reason, remarks, len(certain) > len(nodes))


def _examine(volume: Volume, model: ModelIdentity, ensemble: Ensemble, located: _Located, progress: Progress) -> Analysis:
    nodes = located.nodes
    progress("classify")
    crops = [crops_for(volume, node, ensemble.crop_settings) for node in nodes]
    predictions = ensemble.predict(crops)
    progress("explain")
    heatmaps = saliency.explain(ensemble, crops)
    findings = tuple(Finding(*parts) for parts in zip(nodes, predictions, heatmaps, crops, strict=True))
    return Analysis(volume.header, model, volume, findings, located.coverage, None, located.remarks, located.more_found)


def _identity(ensemble: Ensemble, settings: AnalysisSettings) -> ModelIdentity:
    """Return the model's identity at the threshold in force."""
    model = ensemble.identity
    if settings.operating_point is None:
        return model
    own = OperatingPoint(settings.operating_point, None, None, "threshold set by the site: its sensitivity was not measured")
    return replace(model, operating_point=own)
