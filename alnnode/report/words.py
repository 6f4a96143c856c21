"""What the report says, in words: used by the structured report and by the captures, so that both say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.records import NodeSource, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from alnnode.records import Analysis, Finding, Node, OperatingPoint, Volume

LEAST_PERCENT = 0.1  # a value of 0 is shown as blank by a common viewer


def percent(probability: float) -> float:
    """Return a probability as a percentage with one decimal, never 0."""
    return max(round(100 * probability, 1), LEAST_PERCENT)


def title(finding: Finding) -> str:
    """Return "R node 1"."""
    return f"{finding.node.side.value[0].upper()} node {finding.node.number}"


def verdict(finding: Finding, analysis: Analysis) -> str:
    """Return "R node 1: suspicious, p 91 % (demonstration model)"."""
    said = "suspicious" if finding.suspicious(analysis.model.operating_point) else "not suspicious"
    kind = "demonstration model" if analysis.model.demonstration else "research use only"
    return f"{title(finding)}: {said}, p {percent(finding.prediction.probability):g} % ({kind})"


def hilum(node: Node) -> str | None:
    """Return "fatty hilum 12 %, cortex 2.1 mm"; None where no hilum can be told."""
    if node.hilum_fraction is None or node.cortex_mm is None:
        return None
    return f"fatty hilum {100 * node.hilum_fraction:.0f} %, cortex {node.cortex_mm:.1f} mm"


def slice_name(volume: Volume, slice_index: int) -> str:
    """Return "slice 47 of 83 from the feet, image 37": the second is the number that viewers show."""
    image = volume.slices[slice_index].image_number
    return f"slice {slice_index + 1} of {len(volume.slices)} from the feet{'' if image is None else f', image {image}'}"


def operating_point(point: OperatingPoint) -> str:
    """Return the threshold with what it was measured to give."""
    text = f"operating point {100 * point.threshold:g} %"
    if point.sensitivity and point.specificity:
        figures = ", ".join(
            f"{name} {value.value:.2f} ({value.low:.2f}-{value.high:.2f})"
            for name, value in (("sensitivity", point.sensitivity), ("specificity", point.specificity))
        )
        return f"{text}: {figures} on {point.data_set}"
    return f"{text}: {point.data_set}"


def sides(analysis: Analysis) -> list[str]:
    """Return one sentence per axilla: how much of it is shown, how many nodes, the largest, the most probable."""
    return [_side(analysis, side) for side in (Side.RIGHT, Side.LEFT)]


def _side(analysis: Analysis, side: Side) -> str:
    name = f"{side.value.capitalize()} axilla"
    coverage = next((c for c in analysis.coverage if c.side is side), None)
    mine = [finding for finding in analysis.findings if finding.node.side is side]
    if not mine and coverage is None:
        return f"{name}: no node marked; the algorithm did not search"
    found = (
        f"{_counted(mine, 'node')}, {_extremes(mine, lambda finding: f'node {finding.node.number}')}"
        if mine
        else "no node found"
    )
    if coverage is None or coverage.covered:
        return f"{name}: {found}"
    if not coverage.shown:
        return f"{name}: not shown ({coverage.remark})" + (f"; {found}" if mine else "")
    return f"{name}: not fully shown ({coverage.remark}); {found}" + ("" if mine else " in what is shown")


def _counted(findings: Sequence[Finding], noun: str) -> str:
    """Return "2 nodes", "1 node marked by the reader", or "3 nodes (2 found, 1 marked by the reader)"."""
    marked, total = sum(finding.node.source is NodeSource.READER for finding in findings), len(findings)
    nouns = f"{total} {noun}{'s' if total > 1 else ''}"
    if marked in {0, total}:
        return f"{nouns} marked by the reader" if marked else nouns
    return f"{nouns} ({total - marked} found, {marked} marked by the reader)"


def _extremes(findings: Sequence[Finding], name: Callable[[Finding], str] = title) -> str:
    largest = max(findings, key=lambda finding: finding.node.short_axis.length_mm)
    highest = by_probability(findings)[0]
    return (
        f"largest short axis {largest.node.short_axis.length_mm:.1f} mm ({name(largest)}), "
        f"highest probability {percent(highest.prediction.probability):g} % ({name(highest)})"
    )


def patient(analysis: Analysis) -> str:
    """Return the one sentence for the whole series."""
    if analysis.not_analysed is not None:
        return f"Not analysed: {analysis.not_analysed}"
    if not analysis.findings:
        return f"Analysed: no axillary lymph node found above the size limit{_limits(analysis)}"
    count = sum(finding.suspicious(analysis.model.operating_point) for finding in analysis.findings)
    more = "; there are more, less certain, that are not reported" if analysis.more_found else ""
    found = "" if any(finding.node.source is NodeSource.READER for finding in analysis.findings) else " found"
    return (
        f"Analysed: {_counted(analysis.findings, 'axillary lymph node')}{found}, {count} at or above the operating point; "
        f"{_extremes(analysis.findings)}{more}{_limits(analysis)}"
    )


def headline(analysis: Analysis) -> tuple[str, bool]:
    """Return the answer in a few words, and whether something is suspicious: the side, the node, the probability."""
    point = analysis.model.operating_point
    if analysis.not_analysed is not None:
        return "Axillary lymph nodes: not analysed", False
    if not analysis.findings:
        whole = all(coverage.covered for coverage in analysis.coverage)
        return f"Axillary lymph nodes: no node found{'' if whole else ' in what is shown'}", False
    suspicious = [finding for finding in by_probability(analysis.findings) if finding.suspicious(point)]
    if not suspicious:
        return f"{'Axillary' if analysis.coverage else 'Marked'} lymph nodes: none suspicious", False
    sides = [side.value for side in (Side.RIGHT, Side.LEFT) if any(finding.node.side is side for finding in suspicious)]
    top = suspicious[0]
    axilla = f"{' and '.join(sides)} axilla"
    return f"Suspicious: {axilla}; {title(top)}, p {percent(top.prediction.probability):g} %", True


def _limits(analysis: Analysis) -> str:
    partly = [coverage.side.value for coverage in analysis.coverage if coverage.shown and not coverage.covered]
    hidden = [coverage.side.value for coverage in analysis.coverage if not coverage.shown]
    said = (("not fully shown", partly), ("not shown", hidden))
    return "".join(f"; {what}: {' and '.join(sides)} axilla" for what, sides in said if sides)


def by_probability(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings, most probable first."""
    return sorted(findings, key=lambda finding: (-finding.prediction.probability, finding.node.number))
