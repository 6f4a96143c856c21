"""Operating points, calibration, average precision and subgroups, with their intervals."""

import numpy as np
import pytest

from alnnode.records import Crop
from training.evaluate import calibration, operating_points, roc, subgroups
from training.networks import inference


def labelled(count: int = 400, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.5
    return labels, rng.normal(labels * 1.5, 1.0), np.repeat([str(n) for n in range(count // 8)], 8)


def test_a_proportion_has_its_wilson_interval() -> None:
    found = operating_points.wilson_interval(8, 10)
    assert (found.value, round(found.low, 4), round(found.high, 4)) == (0.8, 0.4902, 0.9433)


def test_nodes_that_are_right_or_wrong_together_count_less() -> None:
    hits = np.repeat(np.arange(40) % 5 > 0, 5)
    alone = operating_points.clustered_proportion(hits, np.arange(200).astype(str))
    wilson = operating_points.wilson_interval(160, 200)
    assert (alone.low, alone.high) == pytest.approx((wilson.low, wilson.high), abs=1e-3)
    together = operating_points.clustered_proportion(hits, np.repeat(np.arange(40), 5).astype(str))
    as_few = operating_points.wilson_interval(32, 40)
    assert (together.low, together.high) == pytest.approx((as_few.low, as_few.high), abs=5e-3)
    assert operating_points.clustered_proportion(np.ones(30, bool), np.arange(30).astype(str)).low == pytest.approx(
        0.886, abs=1e-3
    )
    # If all predictions are hits, the design effect cannot be estimated: thirty nodes of three patients count as three.
    few = operating_points.clustered_proportion(np.ones(30, bool), np.repeat(["a", "b", "c"], 10))
    assert few.low == pytest.approx(operating_points.wilson_interval(3, 3).low)


def test_the_operating_point_equals_that_of_the_contingency_table() -> None:
    labels, scores, patients = labelled()
    point = operating_points.operating_point_at(labels, scores, patients, 0.7)
    called = scores >= 0.7
    assert point.sensitivity.value == (called & labels).sum() / labels.sum()
    assert point.specificity.value == (~called & ~labels).sum() / (~labels).sum()
    assert point.accuracy.value == (called == labels).mean()


def test_youden_is_the_best_of_all_thresholds() -> None:
    labels, scores, patients = labelled(seed=3)
    scores = np.round(scores, 1)

    def index(threshold: float) -> float:
        point = operating_points.operating_point_at(labels, scores, patients, threshold)
        return point.sensitivity.value + point.specificity.value

    found = operating_points.youden_threshold(labels, scores)
    assert index(found) == max(index(t) for t in np.unique(scores))


def test_average_precision_lies_in_its_interval() -> None:
    labels, scores, patients = labelled()
    found = roc.average_precision(labels, scores, patients)
    ranks = np.argsort(-scores)
    precision = np.cumsum(labels[ranks]) / np.arange(1, len(labels) + 1)
    assert found.value == pytest.approx(precision[labels[ranks]].mean())
    assert found.low < found.value < found.high


def test_reliability_and_its_error() -> None:
    scores = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 1.0])
    labels = np.array([False, True, True, True, False, True])
    low, high = calibration.reliability_bins(labels, scores)
    assert (low.nodes, low.observed.value, high.nodes, high.observed.value) == (2, 0.5, 4, 0.75)
    expected = (2 * 0.45 + 4 * (0.9625 - 0.75)) / 6
    assert calibration.expected_calibration_error(labels, scores) == pytest.approx(expected)
    assert calibration.brier_score(labels, scores) == pytest.approx(np.mean((scores - labels) ** 2))


def test_subgroups_of_a_handful_of_patients_have_no_interval() -> None:
    labels, scores, _ = labelled(80)
    for patients, judged in ((4, False), (5, True)):
        names = (np.arange(80) % patients).astype(str)
        (found,) = subgroups.subgroup_aurocs(labels, scores, names, {"side": np.full(80, "left")})
        assert (found.auroc is not None) == judged


def test_subgroups_with_both_classes_have_an_auroc() -> None:
    labels, scores, patients = labelled()
    side = np.where(np.arange(len(labels)) < 200, "L", "R")
    size = np.where(labels, "large", "small")
    found = {group.name: group for group in subgroups.subgroup_aurocs(labels, scores, patients, {"side": side, "size": size})}
    left = side == "L"
    assert found["side: L"].auroc == roc.auroc(labels[left], scores[left], patients[left])
    assert found["side: L"].nodes + found["side: R"].nodes == len(labels)
    assert found["size: large"].auroc is None


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95, 0.98, 1.0])
def test_the_threshold_reaches_the_sensitivity_and_no_higher_one_does(target: float) -> None:
    labels, scores, _ = labelled()
    probability = 1 / (1 + np.exp(-scores))
    threshold = operating_points.threshold_for_sensitivity(labels, probability, target)
    assert (probability[labels] >= threshold).mean() >= target
    assert (probability[labels] >= threshold + 0.02).mean() < max(target, 0.999)


def test_a_threshold_below_a_hundredth_is_not_rounded_up() -> None:
    labels = np.arange(200) < 100
    probability = np.where(labels, 0.6, 0.001)
    probability[:10] = 0.00425
    assert operating_points.threshold_for_sensitivity(labels, probability, 0.98) == pytest.approx(0.0042)


def test_the_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(1)
    honest = rng.normal(0, 2, 20000)
    labels = rng.random(20000) < 1 / (1 + np.exp(-honest))
    overconfident = np.stack([honest * 3, honest * 3])
    assert calibration.fit_temperature(labels, overconfident) == pytest.approx(3, rel=0.06)
    before, after = (inference.mean_probability(overconfident, t) for t in (1.0, 3.0))
    assert calibration.expected_calibration_error(labels, after) < 0.02 < calibration.expected_calibration_error(labels, before)
    assert calibration.brier_score(labels, after) < calibration.brier_score(labels, before)


def test_a_few_nodes_without_ranking_errors_give_no_certainty() -> None:
    labels, logits = np.array([False] * 4 + [True] * 4), np.array([[-9.0] * 4 + [9.0] * 4])
    told = inference.mean_probability(logits, calibration.fit_temperature(labels, logits))
    assert 0.8 < told.max() < 0.86  # (4 + 1) / (4 + 2)


def test_members_are_stacked_in_the_order_of_their_enumeration() -> None:
    stacked = inference.stack_logits({Crop.ASC: np.array([2.0]), Crop.FSC: np.array([1.0])})
    np.testing.assert_array_equal(stacked[:, 0], [{Crop.FSC: 1.0, Crop.ASC: 2.0}[crop] for crop in Crop])
