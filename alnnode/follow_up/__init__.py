"""Comparison with an earlier report of the same patient: which node is which, how it grew, what is new, what is no longer found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.follow_up.matching import match
from alnnode.follow_up.registration import RegistrationError, chest_surface, register
from alnnode.locate.chest_anatomy import Site
from alnnode.records import Side
from alnnode.records.comparison import Change, Comparison, NodeChange, place, study_date

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.follow_up.registration import Motion
    from alnnode.records import Analysis, Finding, Volume
    from alnnode.records.comparison import Earlier, EarlierNode, Prior


def follow(analysis: Analysis, earlier: Earlier) -> Analysis:
    """Return the analysis with what later ones need (the chest's surface), compared with the earlier report where there is one.

    A node that was seen before gets the tracking UID of the earlier report, unless a reader's mark brought
    one, for this node or for another: two nodes never share one.

    Args:
        analysis: of the series; one that was not analysed stays as it is.
        earlier: what was found of earlier results; without a Study Date of the series nothing is compared.
    """
    if analysis.volume is None or analysis.not_analysed is not None:
        return analysis
    volume = analysis.volume
    surface = chest_surface(analysis.site or Site(volume))
    analysis = replace(analysis, surface=surface.sample)
    prior, today = earlier.prior, study_date(analysis.header)
    if prior is None and earlier.trouble is not None:
        return replace(analysis, comparison=Comparison(None, 0, same_model=False, nodes={}, trouble=earlier.trouble))
    if prior is None or today is None:
        return analysis
    days = (today - prior.study_date).days
    same = prior.record.model_digest == analysis.model.digest
    try:
        motion = register(prior.record.surface, surface)
    except RegistrationError as error:
        return replace(analysis, comparison=Comparison(prior, days, same, {}, trouble=str(error)))
    changes, gone, unseen = _compare(analysis, volume, prior, motion)
    comparison = Comparison(prior, days, same, changes, gone, unseen)
    return replace(analysis, comparison=comparison, findings=_tracked(analysis.findings, changes))


def _tracked(findings: Sequence[Finding], changes: dict[int, NodeChange]) -> tuple[Finding, ...]:
    """Give nodes the tracking UIDs of the earlier report; one that a mark brought, or another node has, is given to none."""
    used = {finding.node.tracking_uid for finding in findings}
    found = []
    for finding in findings:
        earlier = changes[finding.node.number].earlier
        if earlier is None or finding.node.tracking_uid is not None or earlier.tracking_uid in used:
            found.append(finding)
            continue
        used.add(earlier.tracking_uid)
        found.append(replace(finding, node=replace(finding.node, tracking_uid=earlier.tracking_uid)))
    return tuple(found)


def _compare(
    analysis: Analysis, volume: Volume, prior: Prior, motion: Motion
) -> tuple[dict[int, NodeChange], tuple[EarlierNode, ...], tuple[EarlierNode, ...]]:
    changes: dict[int, NodeChange] = {}
    gone: list[EarlierNode] = []
    unseen: list[EarlierNode] = []
    covered = {coverage.side for coverage in analysis.coverage if coverage.covered}
    for side in Side:
        now = [finding.node for finding in analysis.findings if finding.node.side is side]
        before = [node for node in prior.record.nodes if node.side is side]
        moved = motion.apply(np.array([node.centre for node in before], dtype=np.float64).reshape(-1, 3))
        result = match(
            moved,
            np.array([node.short_axis_mm for node in before]),
            np.array([place(volume, node) for node in now], dtype=np.float64).reshape(-1, 3),
            np.array([node.short_axis.length_mm for node in now]),
        )
        for j, node in enumerate(now):
            if j in result.pairs:
                changes[node.number] = NodeChange(Change.SEEN, before[result.pairs[j]])
            else:
                sure = side in prior.record.covered and not prior.record.more_found and j not in result.unsure_now
                changes[node.number] = NodeChange(Change.NEW if sure else Change.UNCERTAIN)
        matched = set(result.pairs.values())
        for i, earlier in enumerate(before):
            if i in matched:
                continue
            shown = side in covered and _inside(volume, result.moved[i]) and i not in result.unsure_before
            (gone if shown and not analysis.more_found else unseen).append(earlier)
    return changes, tuple(gone), tuple(unseen)


def _inside(volume: Volume, point: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    """Whether the series shows a place, mm LPS."""
    index = np.linalg.inv(volume.affine) @ np.append(point, 1.0)
    return bool(((index[:3] >= 0) & (index[:3] <= np.array(volume.voxels.shape) - 1)).all())
