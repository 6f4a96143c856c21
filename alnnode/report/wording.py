"""Sentences of the report, for the structured report and the captures, so that both state the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from alnnode.records import LEAST_RAISED, Crop, Level, NodeSource, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from alnnode.records import Analysis, Finding, Node, OperatingPoint, Volume

LEAST_PERCENT = 1  # OHIF shows a value of 0 as blank
LEAST_SHOWN = 0.005  # a probability never reads as certain
MARKED = {
    NodeSource.READER: "marked by the reader",
    NodeSource.ASSISTED: "marked by a reader with software",
    NodeSource.DEVICE: "marked by other software",
}


def percent(probability: float, threshold: float | None = None) -> int:
    """Return a probability in whole per cent, never 0, rounded so that it stays on its side of ``threshold``."""
    whole = round(100 * probability)
    if threshold is not None:
        edge = math.ceil(round(100 * threshold, 6))
        whole = max(whole, edge) if probability >= threshold else min(whole, edge - 1)
    return max(whole, LEAST_PERCENT)


def probability(value: float, threshold: float | None = None) -> str:
    """Return "79 %", "below 1 %" or "above 99 %": the form of a probability in all sentences."""
    if value < LEAST_SHOWN:
        return "below 1 %"
    return "above 99 %" if value >= 1 - LEAST_SHOWN else f"{percent(value, threshold)} %"


def table_percent(value: float) -> str:
    """Return "79", "<1" or ">99": the form of a probability in the cell of a table."""
    if value < LEAST_SHOWN:
        return "<1"
    return ">99" if value >= 1 - LEAST_SHOWN else str(percent(value))


def ensemble_probability(finding: Finding, analysis: Analysis) -> str:
    """Return the probability of a node by the ensemble: "79 %"."""
    return probability(finding.prediction.probability, analysis.model.operating_point.threshold)


def title(finding: Finding) -> str:
    """Return "R node 1"."""
    return f"{finding.node.side.value[0].upper()} node {finding.node.number}"


def verdict(finding: Finding, analysis: Analysis) -> str:
    """Return "R node 1: suspicious, probability 91 % (research use only)".

    A model that was not validated on patients gives no verdict: "R node 1: probability 91 % (demonstration model)".
    """
    said = "suspicious, " if finding.suspicious(analysis.model.operating_point) else "not suspicious, "
    return (
        f"{title(finding)}: {said if analysis.model.clinical else ''}probability {ensemble_probability(finding, analysis)} "
        f"({analysis.model.kind})"
    )


def marked(node: Node) -> str | None:
    """Return "marked by the reader", or by whom else; None for a node that the algorithm located."""
    return MARKED.get(node.source)


def hilum(node: Node) -> str | None:
    """Return "fatty hilum 12 %, cortex 2.1 mm"; None when no hilum was found."""
    if node.hilum_fraction is None or node.cortex_mm is None:
        return None
    return f"fatty hilum {100 * node.hilum_fraction:.0f} %, cortex {node.cortex_mm:.1f} mm"


def slice_name(volume: Volume, slice_index: int) -> str:
    """Return "image 104": the Instance Number or frame number, as viewers show it.

    When images of the series have no number, or the same number, it is "slice 172 of 275 from the feet" for all slices.
    """
    number = slice_number(volume, slice_index)
    return f"image {number}" if is_numbered(volume) else f"slice {number} of {len(volume.slices)} from the feet"


def slice_number(volume: Volume, slice_index: int) -> int:
    """Return the number of a slice as in `slice_name`."""
    number = volume.slices[slice_index].image_number
    return number if number is not None and is_numbered(volume) else slice_index + 1


def is_numbered(volume: Volume) -> bool:
    """Return whether every image of the series has a number of its own."""
    numbers = {reference.image_number for reference in volume.slices}
    return None not in numbers and len(numbers) == len(volume.slices)


def operating_point(point: OperatingPoint) -> str:
    """Return the sentence on the operating point: threshold, sensitivity, specificity, data set."""
    text = f"Operating point {100 * point.threshold:g} %"
    if point.sensitivity and point.specificity:
        figures = ", ".join(
            f"{name} {value.value:.2f} ({value.low:.2f}-{value.high:.2f})"
            for name, value in (("sensitivity", point.sensitivity), ("specificity", point.specificity))
        )
        return f"{text}: {figures} on {point.data_set}"
    return f"{text}: {point.data_set}"


EMPTY_MAP = f"no area raised the probability by {100 * LEAST_RAISED:.0f} point"


def empty_maps(analysis: Analysis) -> str | None:
    """Return the sentence on the Grad-CAM maps that are empty; None when no map is."""
    total = len(analysis.findings)
    empty = {crop: sum(h.empty for f in analysis.findings for h in f.heatmaps if h.crop is crop) for crop in Crop}
    counts = [
        f"{count} of {total} node{'s' if total > 1 else ''} ({crop.value.upper()})" for crop, count in empty.items() if count
    ]
    if not counts:
        return None
    return (
        f"Grad-CAM: empty for {' and '.join(counts)}: no area of the crop raised the probability of that network by "
        f"{100 * LEAST_RAISED:.0f} percentage point. An empty map is no error, and no sign of a benign node"
    )


def sides(analysis: Analysis) -> list[str]:
    """Return one sentence for each axilla: coverage, number of nodes, largest short axis, highest probability."""
    return [_side(analysis, side) for side in (Side.RIGHT, Side.LEFT)]


def _side(analysis: Analysis, side: Side) -> str:
    name = f"{side.value.capitalize()} axilla"
    coverage = next((c for c in analysis.coverage if c.side is side), None)
    mine = [finding for finding in analysis.findings if finding.node.side is side]
    if not mine and coverage is None:
        return f"{name}: no node marked; the algorithm did not search"
    found = "no node found"
    if mine:
        found = f"{_counted(mine, 'node')}{levels(mine)}; {_extremes(mine, analysis, lambda finding: f'node {finding.node.number}')}"
    if coverage is None or coverage.covered:
        return f"{name}: {found}"
    if not coverage.shown:
        return f"{name}: not shown ({coverage.remark})" + (f"; {found}" if mine else "")
    return f"{name}: not fully shown ({coverage.remark}); {found}" + ("" if mine else " in what is shown")


def levels(findings: Sequence[Finding]) -> str:
    """Return " (level I 3, level II 1, not determined 2)"; nothing where no level is known."""
    known = [finding.node.level for finding in findings if finding.node.level is not None]
    if not known:
        return ""
    counts = [f"level {level.value} {known.count(level)}" for level in Level if level in known]
    unknown = [f"not determined {len(findings) - len(known)}"] if len(known) < len(findings) else []
    return f" ({', '.join([*counts, *unknown])})"


def _counted(findings: Sequence[Finding], noun: str) -> str:
    """Return "2 nodes", "1 node marked by the reader", or "3 nodes (2 found, 1 marked by other software)"."""
    sources, total = [finding.node.source for finding in findings], len(findings)
    nouns = f"{total} {noun}{'s' if total > 1 else ''}"
    counts = {words: sources.count(source) for source, words in MARKED.items() if source in sources}
    found = total - sum(counts.values())
    if not counts:
        return nouns
    if len(counts) == 1 and not found:
        return f"{nouns} {next(iter(counts))}"
    parts = [*([f"{found} found"] if found else []), *(f"{count} {words}" for words, count in counts.items())]
    return f"{nouns} ({', '.join(parts)})"


def largest(findings: Sequence[Finding]) -> Finding:
    """Return the finding with the largest short axis."""
    return max(findings, key=lambda finding: (finding.node.short_axis.length_mm, -finding.node.number))


def _extremes(findings: Sequence[Finding], analysis: Analysis, name: Callable[[Finding], str] = title) -> str:
    biggest, highest = largest(findings), by_probability(findings)[0]
    return (
        f"largest short axis {biggest.node.short_axis.length_mm:.1f} mm ({name(biggest)}), "
        f"highest probability {ensemble_probability(highest, analysis)} ({name(highest)})"
    )


def conclusion(analysis: Analysis) -> str:
    """Return the sentence that concludes the whole series."""
    if analysis.not_analysed is not None:
        return f"Not analysed: {analysis.not_analysed}"
    if not analysis.findings:
        return f"Analysed: no axillary lymph node found with a short axis of {analysis.min_short_axis_mm:g} mm or more{_limits(analysis)}"
    point = analysis.model.operating_point
    count = sum(finding.suspicious(point) for finding in analysis.findings)
    more = "; there are more, less certain, that are not reported" if analysis.more_found else ""
    found = "" if any(finding.node.source.is_mark for finding in analysis.findings) else " found"
    whose = "" if analysis.model.clinical else f" ({analysis.model.kind})"
    return (
        f"Analysed: {_counted(analysis.findings, 'axillary lymph node')}{found}; {_extremes(analysis.findings, analysis)}; "
        f"{count or 'none'} at or above the operating point of {100 * point.threshold:g} %{whose}{more}{_limits(analysis)}"
    )


def headline(analysis: Analysis) -> tuple[str, bool]:
    """Return the answer in a few words, and whether a node is suspicious: side, node, probability.

    Only a model that was validated on patients calls nodes suspicious; for other models the headline states which nodes were located.
    """
    if analysis.not_analysed is not None:
        return "Axillary lymph nodes: not analysed", False
    if not analysis.findings:
        whole = all(coverage.covered for coverage in analysis.coverage)
        return f"Axillary lymph nodes: no node found{'' if whole else ' in what is shown'}", False
    if not analysis.model.clinical:
        return _located(analysis), False
    point = analysis.model.operating_point
    suspicious = [finding for finding in by_probability(analysis.findings) if finding.suspicious(point)]
    if not suspicious:
        return f"{'Axillary' if analysis.coverage else 'Marked'} lymph nodes: none suspicious", False
    sides = [side.value for side in (Side.RIGHT, Side.LEFT) if any(finding.node.side is side for finding in suspicious)]
    top = suspicious[0]
    axilla = f"{' and '.join(sides)} axilla"
    return f"Suspicious: {axilla}; {title(top)}, probability {ensemble_probability(top, analysis)}", True


def _located(analysis: Analysis) -> str:
    """Return "14 axillary lymph nodes located: 7 right, 7 left"."""
    total = len(analysis.findings)
    counts = [(side, sum(finding.node.side is side for finding in analysis.findings)) for side in (Side.RIGHT, Side.LEFT)]
    where = ", ".join(f"{count} {side.value}" for side, count in counts if count)
    authors = {marked(finding.node) for finding in analysis.findings}
    one = authors.pop() if len(authors) == 1 else None
    done = "located" if analysis.coverage else one or "marked"
    return f"{total} axillary lymph node{'s' if total > 1 else ''} {done}: {where}"


def _limits(analysis: Analysis) -> str:
    partly = [coverage.side.value for coverage in analysis.coverage if coverage.shown and not coverage.covered]
    hidden = [coverage.side.value for coverage in analysis.coverage if not coverage.shown]
    said = (("not fully shown", partly), ("not shown", hidden))
    return "".join(f"; {what}: {' and '.join(sides)} axilla" for what, sides in said if sides)


def by_probability(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings, most probable first."""
    return sorted(findings, key=lambda finding: (-finding.prediction.probability, finding.node.number))
