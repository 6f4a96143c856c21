"""Decision curves against the definition and the cases that are known exactly."""

import numpy as np
import pytest

from training.evaluate import decision_curve

LABELS = np.arange(100) < 30


def test_the_net_benefit_is_that_of_the_definition() -> None:
    probability = np.linspace(1, 0, 100)  # the first 30 are malignant
    found = decision_curve.net_benefit(LABELS, probability, np.array([0.2, 0.8]))
    # At 0.2, 80 nodes are called: 30 of them right, and each of the 50 others costs a quarter. At 0.8, 20 are called, all right.
    assert found == pytest.approx([0.30 - 0.50 * 0.25, 0.20])


def test_a_perfect_model_saves_every_false_positive_and_chance_is_no_better_than_all_or_none() -> None:
    every = decision_curve.net_benefit_of_all(LABELS)
    perfect = decision_curve.net_benefit(LABELS, LABELS.astype(float))
    np.testing.assert_allclose(perfect, 0.3)
    assert (perfect > every).all()
    constant = decision_curve.net_benefit(LABELS, np.full(100, 0.3))
    below = decision_curve.THRESHOLDS <= 0.3
    np.testing.assert_array_equal(constant[below], every[below])
    assert not constant[~below].any()
    assert every[decision_curve.THRESHOLDS < 0.3].min() > 0 > every[decision_curve.THRESHOLDS > 0.31].max()
