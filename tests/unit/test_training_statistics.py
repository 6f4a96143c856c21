"""Figures and their intervals."""

import numpy as np
import pytest

from alnnode.records import Crop
from training import statistics


def labelled(count: int = 400, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.5
    return labels, rng.normal(labels * 1.5, 1.0), np.repeat([str(n) for n in range(count // 8)], 8)


def test_the_auroc_lies_in_its_interval_and_repeats() -> None:
    labels, scores, patients = labelled()
    found = statistics.auroc(labels, scores, patients)
    # Normals 1.5 deviations apart have an AUROC of 0.856.
    assert found.value == pytest.approx(0.856, abs=0.04)
    assert found.low < found.value < found.high
    assert found == statistics.auroc(labels, scores, patients)
    assert statistics.auroc(labels, labels.astype(float), patients).low == 1.0


def test_the_bootstrap_resamples_patients_and_not_nodes() -> None:
    labels, scores, patients = labelled(200)
    copies = statistics.auroc(np.tile(labels, 4), np.tile(scores, 4), np.tile(patients, 4))
    once = statistics.auroc(labels, scores, patients)
    # Four copies of each node in the same patient tell nothing new, so the interval must not shrink.
    assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=0.05)


def test_a_proportion_has_its_wilson_interval() -> None:
    found = statistics.proportion(8, 10)
    assert (found.value, round(found.low, 4), round(found.high, 4)) == (0.8, 0.4902, 0.9433)


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95, 1.0])
def test_the_threshold_reaches_the_sensitivity_and_no_higher_one_does(target: float) -> None:
    labels, scores, _ = labelled()
    probability = 1 / (1 + np.exp(-scores))
    threshold = statistics.threshold_for(labels, probability, target)
    assert (probability[labels] >= threshold).mean() >= target
    assert (probability[labels] >= threshold + 0.02).mean() < max(target, 0.999)


def test_the_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(1)
    honest = rng.normal(0, 2, 20000)
    labels = rng.random(20000) < 1 / (1 + np.exp(-honest))
    overconfident = np.stack([honest * 3, honest * 3])
    assert statistics.temperature_for(labels, overconfident) == pytest.approx(3, rel=0.06)
    before, after = (statistics.mean_probability(overconfident, t) for t in (1.0, 3.0))
    assert statistics.expected_calibration_error(labels, after) < 0.02 < statistics.expected_calibration_error(labels, before)
    assert statistics.brier(labels, after) < statistics.brier(labels, before)


def test_members_are_stacked_in_the_order_of_their_enumeration() -> None:
    stacked = statistics.stack({Crop.ASC: np.array([2.0]), Crop.FSC: np.array([1.0])})
    np.testing.assert_array_equal(stacked[:, 0], [{Crop.FSC: 1.0, Crop.ASC: 2.0}[crop] for crop in Crop])
