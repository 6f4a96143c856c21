"""Follow-up: matching of nodes when the position of the patient differs, their growth, and cases that stay undetermined."""

from dataclasses import replace
from datetime import date
from functools import cache

import numpy as np
import pytest
from analyses import CONTEXT
from follow_ups import Motion, analysed, first, report_of, second, true_nodes
from pydicom import Dataset
from scipy.spatial.distance import cdist

from alnnode import phantom
from alnnode.follow_up.choice import choose_prior, study_date
from alnnode.follow_up.compare import compare_with_prior
from alnnode.follow_up.matching import match_nodes
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.records import Analysis, AxillaCoverage, Side
from alnnode.records.comparison import Change, PriorLookup

SETTINGS = phantom.PhantomSettings(
    size=256, slices=(70, 70), thickness_mm=(2.5, 2.5), spacing_mm=(1.4, 1.4), min_nodes_per_side=4, max_nodes_per_side=8
)
MOVED = np.array([12.0, -8.0, 3.0])
COVERED = (AxillaCoverage(Side.RIGHT, True), AxillaCoverage(Side.LEFT, True))
MOTIONS = {
    "turned": Motion(turn=(4.0, -3.0, 8.0), shift=(18.0, -12.0, 14.0), bend=0.0),
    "bent": Motion(turn=(-5.0, 2.0, -4.0), shift=(-10.0, 6.0, -20.0), bend=4.0),
}


@cache
def examined(name: str):
    """Return one patient examined twice: of the isolated nodes one was removed, one grew by half, one shrank."""
    made = phantom.make_patient(62000, 2 * list(MOTIONS).index(name), SETTINGS)
    apart = cdist(*[[node.centre_mm for node in made.nodes]] * 2) + 1000 * np.eye(len(made.nodes))
    gone, grown, shrunk = (int(n) + 1 for n in apart.min(axis=1).argsort()[:-4:-1])
    sizes = {gone: 0.0, grown: 1.5, shrunk: 0.8}
    before, now = first(made), second(made, MOTIONS[name], sizes, 5)
    return made, sizes, analysed(before, true_nodes(before, made), COVERED), analysed(now, true_nodes(now, made), COVERED)


def follow(analysis: Analysis, prior: PriorLookup) -> Analysis:
    """Compare an analysis with a prior report, as the pipeline does."""
    return compare_with_prior(analysis, ChestAnatomy(analysis.volume), prior)


@pytest.fixture
def pair():
    return examined("turned")


@pytest.mark.parametrize("name", MOTIONS)
def test_every_node_is_found_again_and_none_is_taken_for_another(name: str) -> None:
    _, sizes, before, now = examined(name)
    result = follow(now, PriorLookup(report_of(before)))
    changes = result.comparison.nodes
    assert result.comparison.trouble is None
    assert [node.number for node in result.comparison.no_longer_found] == [
        number for number, size in sizes.items() if size == 0
    ]
    seen = {number: change.prior_node.number for number, change in changes.items() if change.change is Change.SEEN}
    assert all(number == other for number, other in seen.items())
    assert len(seen) >= 0.9 * len(now.findings)
    assert Change.NEW not in {change.change for change in changes.values()}
    for finding in result.findings:
        expected = f"2.25.4242.{finding.node.number}" if finding.node.number in seen else None
        assert finding.node.tracking_uid == expected


@pytest.mark.parametrize("name", MOTIONS)
def test_growth_is_what_it_truly_was(name: str) -> None:
    """Pixels of 1.4 mm, and slices that cut a rotated node at another place, cause a small error."""
    made, sizes, before, now = examined(name)
    changes = follow(now, PriorLookup(report_of(before))).comparison.nodes
    true = {node.number: (sizes.get(node.number, 1.0) - 1) * node.short_axis_mm for node in made.nodes}
    errors = [
        abs(finding.node.short_axis.length_mm - earlier.short_axis_mm - true[finding.node.number])
        for finding in now.findings
        if (earlier := changes[finding.node.number].prior_node) is not None
    ]
    assert len(errors) >= 6
    assert np.median(errors) < 1
    assert max(errors) < 2


def test_a_node_that_was_not_there_is_new(pair) -> None:
    _, sizes, before, now = pair
    last = next(number for number, size in sizes.items() if size == 1.5)
    fewer = replace(before, findings=tuple(f for f in before.findings if f.node.number != last))
    changes = follow(now, PriorLookup(report_of(fewer))).comparison.nodes
    assert changes[last].change is Change.NEW
    # Where the earlier series did not show the axilla, nobody knows.
    hidden = report_of(fewer, sides=())
    assert follow(now, PriorLookup(hidden)).comparison.nodes[last].change is Change.UNCERTAIN


def test_what_the_series_does_not_show_is_not_called_gone(pair) -> None:
    _, sizes, before, now = pair
    hidden = tuple(replace(coverage, covered=False) for coverage in COVERED)
    comparison = follow(replace(now, coverage=hidden), PriorLookup(report_of(before))).comparison
    assert not comparison.no_longer_found
    assert [node.number for node in comparison.not_compared] == [number for number, size in sizes.items() if size == 0]


def test_where_more_nodes_were_found_than_reported_none_is_called_gone_or_new(pair) -> None:
    """A node that the limit of the report left out may be any of them."""
    _, sizes, before, now = pair
    comparison = follow(replace(now, more_found=True), PriorLookup(report_of(before))).comparison
    assert not comparison.no_longer_found
    assert [node.number for node in comparison.not_compared] == [number for number, size in sizes.items() if size == 0]
    last = next(number for number, size in sizes.items() if size == 1.5)
    prior = report_of(replace(before, findings=tuple(f for f in before.findings if f.node.number != last)))
    limited = prior.model_copy(update={"record": prior.record.model_copy(update={"more_found": True})})
    assert follow(now, PriorLookup(prior)).comparison.nodes[last].change is Change.NEW
    assert follow(now, PriorLookup(limited)).comparison.nodes[last].change is Change.UNCERTAIN


def test_a_readers_own_tracking_uid_is_kept(pair) -> None:
    _, _, before, now = pair
    marked = tuple(replace(f, node=replace(f.node, tracking_uid="2.25.7")) for f in now.findings)
    result = follow(replace(now, findings=marked), PriorLookup(report_of(before)))
    assert {finding.node.tracking_uid for finding in result.findings} == {"2.25.7"}


def test_two_nodes_never_share_a_tracking_uid(pair) -> None:
    """A mark on one node has the UID that the prior report gave to another node; or a report gives one UID twice."""
    _, _, before, now = pair
    prior = report_of(before)
    seen = [n for n, change in follow(now, PriorLookup(prior)).comparison.nodes.items() if change.prior_node is not None]
    taken = f"2.25.4242.{seen[1]}"
    marked = tuple(
        replace(f, node=replace(f.node, tracking_uid=taken)) if f.node.number == seen[0] else f for f in now.findings
    )
    uids = {f.node.number: f.node.tracking_uid for f in follow(replace(now, findings=marked), PriorLookup(prior)).findings}
    assert uids[seen[0]] == taken
    assert uids[seen[1]] is None
    one = tuple(node.model_copy(update={"tracking_uid": "2.25.8"}) for node in prior.record.nodes)
    same = prior.model_copy(update={"record": prior.record.model_copy(update={"nodes": one})})
    assert [f.node.tracking_uid for f in follow(now, PriorLookup(same)).findings].count("2.25.8") == 1


def test_another_patients_chest_does_not_fit(pair) -> None:
    _, _, before, now = pair
    prior = report_of(before)
    wide = tuple((1.5 * x, 0.6 * y, z) for x, y, z in prior.record.surface)
    comparison = follow(
        now, PriorLookup(prior.model_copy(update={"record": prior.record.model_copy(update={"surface": wide})}))
    ).comparison
    assert "does not fit" in comparison.trouble
    assert not comparison.nodes


def test_without_an_earlier_report_only_the_surface_is_added(pair) -> None:
    _, _, _, now = pair
    result = follow(now, PriorLookup())
    assert result.comparison is None
    assert len(result.surface) == 300
    assert replace(result, surface=()) == now


def test_an_archive_that_was_not_asked_is_told(pair) -> None:
    _, _, _, now = pair
    assert (
        follow(now, PriorLookup(trouble="archive vna could not be asked")).comparison.trouble
        == "archive vna could not be asked"
    )


def points(*places: tuple[float, float, float]) -> np.ndarray:
    return np.array(places, dtype=np.float64)


def test_two_nodes_at_the_place_of_one_are_not_decided() -> None:
    before = points((0, 0, 0), (40, 0, 0), (0, 40, 0))
    now = points((1.5, 0, 0), (-1.5, 0, 0), (40, 0, 0), (0, 40, 0))
    result = match_nodes(before, np.full(3, 8.0), now, np.full(4, 8.0))
    assert result.pairs == {2: 1, 3: 2}
    assert result.unsure_now == {0, 1}
    assert result.unsure_before == {0}


def test_a_node_of_quite_another_size_is_another_node() -> None:
    result = match_nodes(points((0, 0, 0)), np.array([5.0]), points((1, 0, 0)), np.array([14.0]))
    assert not result.pairs


def test_an_axilla_that_moved_as_a_whole_is_followed_but_one_node_far_away_is_not() -> None:
    before = points((0, 0, 0), (30, 5, 0), (0, 35, 20))
    result = match_nodes(before, np.full(3, 8.0), before + MOVED, np.full(3, 8.0))
    assert result.pairs == {0: 0, 1: 1, 2: 2}
    alone = match_nodes(before[:1], np.full(1, 8.0), before[:1] + MOVED, np.full(1, 8.0))
    assert not alone.pairs


def test_the_newest_earlier_study_counts_and_of_it_the_like_series(pair) -> None:
    _, _, before, _ = pair
    base = report_of(before)

    def report(day: date, study: str, slice_mm: float):
        record = base.record.model_copy(update={"slice_mm": slice_mm})
        return base.model_copy(update={"study_date": day, "study_instance_uid": study, "record": record})

    known = [
        report(date(2024, 1, 1), "2.25.1", 1.0),
        report(date(2025, 1, 1), "2.25.2", 5.0),
        report(date(2025, 1, 1), "2.25.2", 1.5),
        report(date(2026, 5, 4), "2.25.3", 1.0),
        report(date(2025, 9, 9), "2.25.4", 1.0),
    ]
    assert choose_prior(known, "2.25.4", date(2026, 5, 4), 1.0) == known[2]
    assert choose_prior(known[3:4], "2.25.9", date(2026, 5, 4), 1.0) is None


def test_what_is_compared_changes_the_identity_of_the_result(pair) -> None:
    _, _, before, _ = pair
    prior = report_of(before)
    digests = {
        e.digest_with(CONTEXT.input_digest)
        for e in (
            PriorLookup(),
            PriorLookup(prior),
            PriorLookup(trouble="archive vna could not be asked"),
            PriorLookup(prior.model_copy(update={"study_date": date(2025, 1, 1)})),
        )
    }
    assert len(digests) == 4
    assert PriorLookup().digest_with(CONTEXT.input_digest) == CONTEXT.input_digest


@pytest.mark.parametrize("value", ["", "2026", "20261301", None])
def test_a_study_date_that_is_none(value) -> None:
    header = Dataset()
    if value is not None:
        header.add_new(0x00080020, "LO", value)
    assert study_date(header) is None
