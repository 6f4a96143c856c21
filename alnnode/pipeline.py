"""The analysis of one series: its files in, an `Analysis` out. It uses neither a database nor the network."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from alnnode.errors import NotAnalysable
from alnnode.follow_up.compare import compare_with_prior
from alnnode.imaging.crop import crops_for
from alnnode.imaging.series import read_header, read_volume
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.detector import Detector
from alnnode.locate.marks.nodes import merge_nodes, nodes_from_marks
from alnnode.locate.search import NodeDetector, SearchLimits, locate_nodes, number_nodes
from alnnode.model import saliency
from alnnode.model.ensemble import Ensemble
from alnnode.model.turns import Turns
from alnnode.records import Analysis, Finding, Locate, OperatingPoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from alnnode.locate.detector import DetectorMaps, DetectorSettings
    from alnnode.locate.search_grid import SearchGrid
    from alnnode.model.bundle import Bundle
    from alnnode.records import AxillaCoverage, MarkObject, ModelIdentity, Node
    from alnnode.records.comparison import PriorLookup
    from alnnode.settings import Analysis as AnalysisSettings


MAX_REMARKS = 20


class Progress(Protocol):
    """Called with the name of each step when it begins; may raise to stop the analysis."""

    def __call__(self, step: str, /) -> object:
        """Receive the name of the step; the return value is ignored."""


class Models:
    """The networks of one bundle on one device: the detector locates nodes, the ensemble classifies them.

    Several threads may analyse at the same time; they take turns at the device. A GPU gets the crops of all series that wait in one
    batch. On a CPU each series has batches of its own, because the last bits of a result may depend on the batch there.
    """

    def __init__(self, ensemble: Ensemble, detector: NodeDetector) -> None:
        self.ensemble = ensemble
        device, together = threading.Lock(), ensemble.device.type == "cuda"
        self.detector: NodeDetector = _TakesTurns(detector, device)
        self.predict = Turns(ensemble.predict, device, together=together)
        self.explain = Turns(partial(saliency.explain, ensemble), device, together=together)

    @property
    def arithmetic(self) -> str:
        """Return what the last bits of a result depend on beside input and weights (`Ensemble.arithmetic`, `Detector.arithmetic`)."""
        return f"{self.ensemble.arithmetic}, detector {self.detector.arithmetic}"

    @classmethod
    def load(cls, bundle: Bundle, device: str) -> Models:
        """Build the networks of a bundle on a device ("auto", "cpu" or "cuda").

        Raises:
            BundleError: the bundle has no detector, its weights do not fit, or the device is missing.
        """
        ensemble = Ensemble(bundle, device)
        return cls(ensemble, Detector.from_bundle(bundle, ensemble.device))


class _TakesTurns:
    """A detector that one thread uses at a time."""

    def __init__(self, detector: NodeDetector, device: threading.Lock) -> None:
        self._detector, self._device = detector, device

    @property
    def settings(self) -> DetectorSettings:
        return self._detector.settings

    @property
    def arithmetic(self) -> str:
        return self._detector.arithmetic

    def predict(self, grid: SearchGrid) -> DetectorMaps:
        with self._device:
            return self._detector.predict(grid)


@dataclass(frozen=True, slots=True)
class SeriesInput:
    """The input of one analysis.

    Attributes:
        paths: Part 10 files of one series, in any order.
        marks: drawn by readers or other software, on this series or on others; ``settings.locate`` says whether they are used.
        prior: result of the search for a prior report; None: the series is not compared, and its report holds no record for later
            comparisons.
    """

    paths: Sequence[Path]
    marks: Sequence[MarkObject] = ()
    prior: PriorLookup | None = None


def analyse(
    series: SeriesInput, models: Models, settings: AnalysisSettings, progress: Progress = lambda _step: None
) -> Analysis:
    """Locate, classify and explain the axillary lymph nodes of one series, and compare them with a prior report.

    Args:
        series: its files, marks and the prior report.
        models: detector and ensemble.
        settings: the ``[analysis]`` section.
        progress: called with "read", "locate", "classify", "explain" and "compare".

    Returns:
        The findings. For a series that cannot be analysed, ``not_analysed`` gives the reason.

    Raises:
        NotAnalysable: no file of the series has a readable header.
    """
    model = _identity(models.ensemble, settings)
    progress("read")
    try:
        anatomy = ChestAnatomy(read_volume(series.paths, settings.max_slice_spacing_mm))
    except NotAnalysable as error:
        header = read_header(series.paths)
        if series.prior is not None:
            progress("compare")
        return Analysis(header=header, model=model, volume=None, not_analysed=str(error))
    progress("locate")
    located = _locate(anatomy, models.detector, settings, series.marks)
    analysis = _classify(anatomy, model, models, located, progress)
    analysis = replace(analysis, min_short_axis_mm=settings.min_short_axis_mm)
    if series.prior is not None:
        progress("compare")
        analysis = compare_with_prior(analysis, anatomy, series.prior)
    return analysis


@dataclass(frozen=True, slots=True)
class _Located:
    """The located nodes, and what the report says of the search."""

    nodes: tuple[Node, ...]
    coverage: tuple[AxillaCoverage, ...]
    not_analysed: str | None
    remarks: tuple[str, ...]
    more_found: bool


def _locate(anatomy: ChestAnatomy, detector: NodeDetector, settings: AnalysisSettings, marks: Sequence[MarkObject]) -> _Located:
    """Locate the nodes by the algorithm, by marks, or by both."""
    marked: list[Node] = []
    remarks: tuple[str, ...] = ()
    if settings.locate is not Locate.AUTO:
        marked, remarks = nodes_from_marks(anatomy, marks, detector.settings.levels)
        remarks = (*remarks[:MAX_REMARKS], *([f"and {len(remarks) - MAX_REMARKS} more"] if len(remarks) > MAX_REMARKS else []))
    if settings.locate is Locate.MARKS:
        reason = None if marked else "; ".join(["the nodes of this series are taken from marks, and there are none", *remarks])
        nodes = tuple(number_nodes(marked[: settings.max_nodes], anatomy.volume.affine))
        return _Located(nodes, (), reason, remarks, len(marked) > len(nodes))
    # One node more than the settings allow shows that nodes are left out.
    limits = SearchLimits(settings.min_short_axis_mm, settings.max_nodes + 1, settings.detector_threshold)
    merged = merge_nodes(marked, locate_nodes(anatomy, detector, limits))
    certain = sorted(merged, key=lambda node: (not node.source.is_mark, -node.score))
    nodes = tuple(number_nodes(certain[: settings.max_nodes], anatomy.volume.affine))
    coverage = anatomy.coverage
    reason = None
    if not nodes and not any(side.shown for side in coverage):
        reason = "neither axilla is within these images: " + "; ".join(f"{side.side}: {side.remark}" for side in coverage)
    return _Located(nodes, coverage, reason, remarks, len(certain) > len(nodes))


def _classify(anatomy: ChestAnatomy, model: ModelIdentity, models: Models, located: _Located, progress: Progress) -> Analysis:
    """Classify the located nodes and explain the probabilities."""
    volume = anatomy.volume
    if located.not_analysed is not None:
        return Analysis(volume.header, model, volume, (), located.coverage, located.not_analysed, located.remarks)
    progress("classify")
    settings = models.ensemble.crop_settings
    blood_hu = anatomy.blood_hu if settings.blood_pool else None
    crops = [crops_for(volume, node, settings, blood_hu) for node in located.nodes]
    predictions = models.predict(crops)
    progress("explain")
    heatmaps = models.explain(crops)
    findings = tuple(Finding(*parts) for parts in zip(located.nodes, predictions, heatmaps, crops, strict=True))
    return Analysis(volume.header, model, volume, findings, located.coverage, None, located.remarks, located.more_found)


def _identity(ensemble: Ensemble, settings: AnalysisSettings) -> ModelIdentity:
    """Return the identity of the model with the operating point of the settings, or its own."""
    model = ensemble.identity
    if settings.operating_point is None:
        return model
    own = OperatingPoint(settings.operating_point, None, None, "threshold set by the site: its sensitivity was not measured")
    return replace(model, operating_point=own)
