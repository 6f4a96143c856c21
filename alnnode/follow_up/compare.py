"""Comparison of a series with a prior report: matched nodes, their growth, new nodes, and nodes that are no longer found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.follow_up.choice import study_date
from alnnode.follow_up.matching import match_nodes
from alnnode.follow_up.node_centre import node_centre
from alnnode.follow_up.registration import RegistrationError, chest_surface, register_chest
from alnnode.records import Side
from alnnode.records.comparison import Change, Comparison, NodeChange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.follow_up.registration import Motion
    from alnnode.locate.chest_anatomy import ChestAnatomy
    from alnnode.records import Analysis, Finding, Volume
    from alnnode.records.comparison import PriorLookup, PriorNode, PriorReport


def compare_with_prior(analysis: Analysis, anatomy: ChestAnatomy, prior: PriorLookup) -> Analysis:
    """Return the analysis with the surface of its chest, which later comparisons need, and with its comparison to the prior report.

    A node that was seen before gets the tracking UID of the prior report, unless a reader's mark gave this node another one, or gave
    that UID to another node: two nodes never share a tracking UID.

    Args:
        analysis: of the series; a series that was not analysed stays unchanged.
        anatomy: the chest of the series.
        prior: result of the search for a prior report. A series without Study Date is not compared, and the report says so.
    """
    if analysis.volume is None or analysis.not_analysed is not None:
        return analysis
    surface = chest_surface(anatomy)
    analysis = replace(analysis, surface=surface.sample)
    report, today = prior.report, study_date(analysis.header)
    if report is None and prior.trouble is not None:
        return replace(analysis, comparison=Comparison(None, 0, same_model=False, nodes={}, trouble=prior.trouble))
    if report is None or today is None:
        return analysis
    days = (today - report.study_date).days
    same = report.record.model_digest == analysis.model.digest
    try:
        motion = register_chest(report.record.surface, surface)
    except RegistrationError as error:
        return replace(analysis, comparison=Comparison(report, days, same, {}, trouble=str(error), incomplete=prior.trouble))
    changes, no_longer_found, not_compared = _compare(analysis, anatomy.volume, report, motion)
    comparison = Comparison(report, days, same, changes, no_longer_found, not_compared, incomplete=prior.trouble)
    return replace(analysis, comparison=comparison, findings=_with_tracking_uids(analysis.findings, changes))


def _with_tracking_uids(findings: Sequence[Finding], changes: dict[int, NodeChange]) -> tuple[Finding, ...]:
    """Give nodes the tracking UIDs of the prior report, except where the node or the UID is already paired with another."""
    used = {finding.node.tracking_uid for finding in findings}
    tracked = []
    for finding in findings:
        prior_node = changes[finding.node.number].prior_node
        if prior_node is None or finding.node.tracking_uid is not None or prior_node.tracking_uid in used:
            tracked.append(finding)
            continue
        used.add(prior_node.tracking_uid)
        tracked.append(replace(finding, node=replace(finding.node, tracking_uid=prior_node.tracking_uid)))
    return tuple(tracked)


def _compare(
    analysis: Analysis, volume: Volume, report: PriorReport, motion: Motion
) -> tuple[dict[int, NodeChange], tuple[PriorNode, ...], tuple[PriorNode, ...]]:
    """Return the change of each node, and the prior nodes that are no longer found and that are not compared."""
    changes: dict[int, NodeChange] = {}
    no_longer_found: list[PriorNode] = []
    not_compared: list[PriorNode] = []
    covered = {coverage.side for coverage in analysis.coverage if coverage.covered}
    for side in Side:
        now = [finding.node for finding in analysis.findings if finding.node.side is side]
        before = [node for node in report.record.nodes if node.side is side]
        moved = motion.apply(np.array([node.centre for node in before], dtype=np.float64).reshape(-1, 3))
        result = match_nodes(
            moved,
            np.array([node.short_axis_mm for node in before]),
            np.array([node_centre(volume, node) for node in now], dtype=np.float64).reshape(-1, 3),
            np.array([node.short_axis.length_mm for node in now]),
        )
        for j, node in enumerate(now):
            if j in result.pairs:
                changes[node.number] = NodeChange(Change.SEEN, before[result.pairs[j]])
            else:
                sure = side in report.record.covered and not report.record.more_found and j not in result.unsure_now
                changes[node.number] = NodeChange(Change.NEW if sure else Change.UNCERTAIN)
        matched = set(result.pairs.values())
        for i, prior_node in enumerate(before):
            if i in matched:
                continue
            shown = side in covered and _in_volume(volume, result.moved[i]) and i not in result.unsure_before
            (no_longer_found if shown and not analysis.more_found else not_compared).append(prior_node)
    return changes, tuple(no_longer_found), tuple(not_compared)


def _in_volume(volume: Volume, point: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    """Return whether a position (mm, LPS) lies within the volume."""
    index = np.linalg.inv(volume.affine) @ np.append(point, 1.0)
    return bool(((index[:3] >= 0) & (index[:3] <= np.array(volume.voxels.shape) - 1)).all())
