"""Texts on the comparison with a prior report, for the structured report and the captures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.counted import counted
from alnnode.follow_up.growth import classify_growth, growth_mm
from alnnode.records.comparison import SHORT_AXIS_CHANGE_ERROR_MM, Change, Growth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import Analysis, Finding
    from alnnode.records.comparison import Comparison, NodeChange, PriorNode

CELLS = {Change.NEW: "new", Change.UNCERTAIN: "not determined"}
ERROR = f"{SHORT_AXIS_CHANGE_ERROR_MM:g} mm"


def change_of(finding: Finding, analysis: Analysis) -> tuple[Comparison, NodeChange] | None:
    """Return the comparison, and the change of a node in it; None when nothing was compared."""
    comparison = analysis.comparison
    if comparison is None or comparison.trouble is not None:
        return None
    return comparison, comparison.nodes[finding.node.number]


def growth_percent(finding: Finding, prior_node: PriorNode) -> float | None:
    """Return the growth of the short axis in per cent of its prior value; None when that is 0."""
    grown = growth_mm(finding.node.short_axis.length_mm, prior_node)
    return round(100 * grown / prior_node.short_axis_mm) if prior_node.short_axis_mm else None


def risk_points(finding: Finding, prior_node: PriorNode) -> int:
    """Return the change of the probability in percentage points."""
    return round(100 * (finding.prediction.probability - prior_node.probability))


def change_sentence(finding: Finding, analysis: Analysis) -> str | None:
    """Return "short axis 8.1 to 10.2 mm in 183 days (+2.1 mm, +26 %), probability +12 points"; None when nothing was compared.

    For a change within the measurement error the sentence says so, and gives no growth.
    """
    found = change_of(finding, analysis)
    if found is None:
        return None
    comparison, change = found
    since = _date(comparison)
    if change.prior_node is None:
        return f"new since {since}" if change.change is Change.NEW else f"not determined whether seen on {since}"
    now, relative = finding.node.short_axis.length_mm, growth_percent(finding, change.prior_node)
    if classify_growth(now, change.prior_node) is Growth.WITHIN_ERROR:
        said = f"within the measurement error of {ERROR}"
    else:
        said = f"{growth_mm(now, change.prior_node):+.1f} mm{'' if relative is None else f', {relative:+.0f} %'}"
    text = f"short axis {change.prior_node.short_axis_mm:.1f} to {now:.1f} mm in {counted(comparison.days, 'day')} ({said})"
    return f"{text}, probability {_points(risk_points(finding, change.prior_node))}" if comparison.same_model else text


def _points(points: int) -> str:
    return f"{points:+d} point{'' if abs(points) == 1 else 's'}"


def heading(analysis: Analysis) -> str | None:
    """Return the heading of the column in the table; None when nothing was compared."""
    comparison = analysis.comparison
    return None if comparison is None or comparison.trouble is not None else f"since {_date(comparison)}"


def cell(finding: Finding, analysis: Analysis) -> str:
    """Return "+2.1 mm", "within error", "new" or "not determined"."""
    found = change_of(finding, analysis)
    if found is None:
        return ""
    change = found[1]
    if change.prior_node is None:
        return CELLS[change.change]
    now = finding.node.short_axis.length_mm
    return (
        "within error"
        if classify_growth(now, change.prior_node) is Growth.WITHIN_ERROR
        else f"{growth_mm(now, change.prior_node):+.1f} mm"
    )


def title(finding: Finding, analysis: Analysis) -> str | None:
    """Return "short axis +2.1 mm since 2025-11-02" for the line that viewers show for a node; None when nothing was compared."""
    found = change_of(finding, analysis)
    if found is None:
        return None
    if found[1].change is Change.UNCERTAIN:
        return f"not determined whether seen on {_date(found[0])}"
    axis = "" if found[1].prior_node is None else "short axis "
    return f"{axis}{cell(finding, analysis)} {heading(analysis)}"


def sentences(analysis: Analysis) -> list[str]:
    """Return the sentences on the comparison of the series."""
    comparison = analysis.comparison
    if comparison is None:
        return []
    if comparison.prior is None:
        return [f"Not compared with earlier reports: {comparison.trouble}"]
    named = f"the report of {_date(comparison)}, {counted(comparison.days, 'day')} earlier"
    missing = [] if comparison.incomplete is None else [f"A more recent report may be missing: {comparison.incomplete}"]
    if comparison.trouble is not None:
        return [f"Not compared with {named}: {comparison.trouble}", *missing]
    kinds = [change.change for change in comparison.nodes.values()]
    counts = [f"{kinds.count(kind)} {kind.value}" for kind in Change if kind is not Change.UNCERTAIN or kind in kinds]
    said = [
        f"Compared with {named}: {', '.join(counts)}, {len(comparison.no_longer_found)} no longer found{_most_grown(analysis, comparison)}",
        *missing,
    ]
    if comparison.no_longer_found:
        said.append(f"No longer found: {_listed(comparison.no_longer_found)}")
    if comparison.not_compared:
        more = ", or more nodes were found than are reported" if analysis.more_found else ""
        said.append(
            f"Not compared, as the place is not shown{more} or the reading is not clear: {_listed(comparison.not_compared)}"
        )
    if not comparison.same_model:
        said.append("The earlier report is by another model: probabilities are not compared")
    return said


def error_sentences(analysis: Analysis) -> list[str]:
    """Return the sentence on the measurement error when a short axis was compared, for the structured report only."""
    comparison = analysis.comparison
    if comparison is None or all(change.prior_node is None for change in comparison.nodes.values()):
        return []
    return [
        f"Measurement error of the change of a short axis: {ERROR}, 95 % of the nodes of synthetic phantoms; it was not measured on patients"
    ]


def _most_grown(analysis: Analysis, comparison: Comparison) -> str:
    seen = [
        (finding, prior_node)
        for finding in analysis.findings
        if (prior_node := comparison.nodes[finding.node.number].prior_node) is not None
    ]
    grown = [
        (growth_mm(finding.node.short_axis.length_mm, prior_node), finding)
        for finding, prior_node in seen
        if classify_growth(finding.node.short_axis.length_mm, prior_node) is Growth.LARGER
    ]
    if not grown:
        return f"; no short axis grew by more than the measurement error ({ERROR})" if seen else ""
    most, finding = max(grown, key=lambda pair: (pair[0], -pair[1].node.number))
    return (
        f"; largest growth of a short axis {most:+.1f} mm "
        f"({finding.node.side.value[0].upper()} node {finding.node.number}; error {ERROR})"
    )


def _listed(nodes: Sequence[PriorNode]) -> str:
    return ", ".join(f"earlier {node.side.value[0].upper()} node {node.number} ({node.short_axis_mm:.1f} mm)" for node in nodes)


def _date(comparison: Comparison) -> str:
    return "an earlier day" if comparison.prior is None else comparison.prior.study_date.isoformat()
