"""AUROC clustered by patient: compared with other implementations and with simulated patients."""

import numpy as np
import pytest
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score

from training.evaluate import roc


def nodes_of_patients(rng, patients: int = 60, each: int = 4, lift: float = 1.5, shared: float = 0.0):
    """Return scores of two models; ``shared`` is the correlation of scores and labels within a patient."""
    name = np.repeat(np.arange(patients), each)
    common, leaning = rng.normal(0, 1, patients)[name], rng.normal(0, 1, patients)[name]
    labels = shared * leaning + np.sqrt(1 - shared**2) * rng.normal(0, 1, len(name)) > 0
    scores = [lift * labels + np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(0, 1, len(name)) for _ in range(2)]
    return labels, scores, name.astype(str)


def delong_by_midranks(labels, scores):
    """Sun & Xu, IEEE Signal Process Lett 2014: the same covariance from ranks."""
    m, n = labels.sum(), (~labels).sum()
    v10, v01 = [], []
    for score in scores:
        joint = rankdata(np.concatenate([score[labels], score[~labels]]))
        v10.append((joint[:m] - rankdata(score[labels])) / n)
        v01.append(1 - (joint[m:] - rankdata(score[~labels])) / m)
    return np.cov(v10) / m + np.cov(v01) / n


def test_with_one_node_per_patient_it_is_delong() -> None:
    labels, scores, patients = nodes_of_patients(np.random.default_rng(0), 200, 1)
    scores[1] = np.round(scores[1])  # ties
    areas, covariance = roc.delong_covariance(labels, scores, patients)
    np.testing.assert_allclose(areas, [roc_auc_score(labels, score) for score in scores], rtol=1e-12)
    np.testing.assert_allclose(covariance, delong_by_midranks(labels, scores), rtol=1e-9)


def test_copies_of_a_node_in_its_patient_add_no_information() -> None:
    labels, scores, patients = nodes_of_patients(np.random.default_rng(1), 80, 3)
    _, once = roc.delong_covariance(labels, scores, patients)
    _, fourfold = roc.delong_covariance(np.tile(labels, 4), [np.tile(s, 4) for s in scores], np.tile(patients, 4))
    np.testing.assert_allclose(fourfold, once, rtol=1e-9)


def test_intervals_have_their_coverage_when_nodes_are_clustered() -> None:
    rng, held, naive, rejected, tries = np.random.default_rng(2), 0, 0, 0, 400
    truth = norm.cdf(1.5 / np.sqrt(2))
    for _ in range(tries):
        labels, scores, patients = nodes_of_patients(rng, 50, 6, shared=0.7)
        found = roc.auroc(labels, scores[0], patients)
        held += found.low < truth < found.high
        alone = roc.auroc(labels, scores[0], np.arange(len(labels)).astype(str))
        naive += alone.low < truth < alone.high
        areas, covariance = roc.delong_covariance(labels, scores, patients)
        z = (areas[0] - areas[1]) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
        rejected += abs(z) > roc.Z
    assert 0.92 <= held / tries <= 0.98
    assert 0.02 <= rejected / tries <= 0.09
    assert naive < held


def test_the_bootstrap_and_delong_agree_and_find_a_difference() -> None:
    rng = np.random.default_rng(3)
    labels, (good, _), patients = nodes_of_patients(rng, 100, 5, shared=0.4)
    worse = good + rng.normal(0, 1.5, len(good))
    delong, drawn = roc.auroc(labels, good, patients), roc.bootstrap_aurocs(labels, good, patients)
    assert delong.value == pytest.approx(drawn.mean(), abs=0.005)
    assert np.ptp(np.quantile(drawn, [0.025, 0.975])) == pytest.approx(delong.high - delong.low, rel=0.15)
    found = roc.compare_aurocs(labels, good, worse, patients)
    assert found.difference.low > 0
    assert found.p < 0.001
    assert found.p_bootstrap < 0.01
    same = roc.compare_aurocs(labels, good, 3 * good + 1, patients)
    assert (same.difference.value, same.p, same.p_bootstrap) == (0, 1, 1)
    back = roc.compare_aurocs(labels, worse, good, patients)
    assert back.difference.value == pytest.approx(-found.difference.value)
    assert back.p == pytest.approx(found.p)


def test_a_resample_weights_patients_by_the_number_of_draws() -> None:
    labels, (scores, _), patients = nodes_of_patients(np.random.default_rng(4), 12, 3)
    drawn = roc.bootstrap_aurocs(labels, scores, patients, seed=5)
    names = np.unique(patients)
    weights = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), roc.RESAMPLES)[0]
    rows = np.concatenate([np.flatnonzero(patients == n) for n, w in zip(names, weights, strict=True) for _ in range(w)])
    assert drawn[0] == pytest.approx(roc_auc_score(labels[rows], scores[rows]), abs=1e-6)


def test_a_perfect_ranking_has_an_interval() -> None:
    labels = np.array([True] * 30 + [False] * 20)
    found = roc.auroc(labels, labels.astype(float), np.arange(50).astype(str))
    assert (found.value, found.high) == (1, 1)
    assert 0.8 < found.low < 0.9
    with pytest.raises(ValueError, match="both classes"):
        roc.auroc(np.ones(4, bool), np.arange(4.0), np.array(list("abcd")))
