"""The reproduction in its tiny profile, and what it stands on: frozen terms, a cohort of the said shape, selection on validation."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from alnnode.model import bundle
from alnnode.records import Crop
from training.data import cohort as cohorts
from training.data import described
from training.evaluate import operating_points
from training.fit import grid, protocol, reproduce, reproduction, selection
from training.fit.protocol import PAPER
from training.networks import build
from training.report import lidc_report, reproduce_report


def test_the_whole_protocol_runs_in_its_tiny_profile_and_a_second_run_changes_nothing(tmp_path) -> None:
    plan = reproduction.read("tiny", tmp_path, processes=0)
    said: list[str] = []

    def report(name: str, total: int):
        return lambda: said.append(name)

    outcome = reproduce.run(plan, report, tmp_path / "bundle")
    nodes = outcome.nodes.cohort
    assert (len(nodes), int(nodes.malignant.sum())) == (plan.profile.nodes, plan.profile.malignant)
    assert said.count("networks") == len(plan.profile.families) * len(Crop) * plan.profile.folds
    loaded = bundle.load(tmp_path / "bundle")
    assert loaded.digest == outcome.digest
    text = reproduce_report.markdown(plan, outcome, "a test")
    assert outcome.digest in text
    assert re.search(
        r"AUROC on validation is [01]\.\d+ with \d+ million multiply-adds a node\. The best pair, .* p = [01]\.\d+", text
    )
    assert "This is the reduced profile `tiny`" in text
    for row in ("densenet121, ASC", "short axis alone", "logistic regression on the generator's parameters"):
        assert re.search(rf"^\| [^|]*{re.escape(row)}.* \| \d", text, re.MULTILINE), row
    assert len(outcome.chance) == reproduce.DEALS
    assert len(set(outcome.chance)) > 1  # another deal is another network
    assert re.search(r"Permuted labels .* mean [01]\.\d+ \(", text)
    assert f"{PAPER[1]} less {outcome.member}" in text
    again = reproduce.run(plan, report, tmp_path / "again")
    assert again.digest == outcome.digest
    assert again.seconds > outcome.seconds > 0
    for one, other in zip(outcome.rows, again.rows, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize(("page", "template"), [("reproduction", reproduce_report._TEXT), ("lidc", lidc_report._TEXT)])
def test_a_page_that_a_command_writes_has_the_words_of_its_template(page: str, template: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / f"{page}.md").read_text(encoding="utf-8")
    written = re.sub(r"^> .*?\n\n", "", text, flags=re.MULTILINE | re.DOTALL)  # notes, which are written by hand
    assert re.fullmatch(re.sub(r"\\\{\w+\\\}", ".*?", re.escape(template)), written, re.DOTALL)


def test_the_terms_have_the_shape_of_the_paper_and_a_changed_phantom_stops_it(tmp_path) -> None:
    for name in ("full", "reduced"):
        profile = reproduction.read(name, tmp_path).profile
        assert (profile.patients, profile.nodes, profile.malignant, len(profile.families)) == (523, 1128, 538, 6)
    changed = tmp_path / "changed.toml"
    changed.write_text(reproduction.TERMS.read_text().replace(cohorts.phantom_code(), "0" * 64))
    with pytest.raises(reproduction.ChangedTermsError, match="Freeze it anew"):
        reproduction.read("tiny", tmp_path, terms=changed)


def pool(patients: int = 30, each: int = 5) -> described.Described:
    rng = np.random.default_rng(0)
    count = patients * each
    crops = rng.integers(0, 255, (count, 1, 1, 2, 2), np.uint8)
    part = cohorts.Cohort(
        crops, crops, rng.random(count) < 0.5, np.repeat([f"1:{n}" for n in range(patients)], each), np.zeros(count, np.float32)
    )
    columns = [np.zeros((count, len(names)), kind) for names, kind in ((described.MEASURED, float), (described.DRAWN, float))]
    return described.Described(part, *columns, np.full((count, len(described.IMAGED)), "x"))


def test_the_cohort_has_every_patient_and_the_numbers_that_were_asked() -> None:
    chosen = described.choose(pool(), 80, 38, seed=1)
    assert (len(chosen), int(chosen.cohort.malignant.sum()), len(chosen.cohort.patients)) == (80, 38, 30)
    with pytest.raises(described.ShortageError, match="140 nodes of class True"):
        described.choose(pool(), 145, 140, seed=1)


def test_folds_share_their_test_patients_and_no_others() -> None:
    nodes = pool()
    splits = [reproduction.split(nodes, fold, 4) for fold in range(4)]
    patients = nodes.cohort.patient
    for rows in splits:
        np.testing.assert_array_equal(rows.test, splits[0].test)
        groups = [set(patients[part]) for part in (rows.train, rows.validation, rows.test)]
        assert sum(map(len, groups)) == len(set().union(*groups)) == 30
    validated = np.concatenate([rows.validation for rows in splits])
    assert len(set(validated)) == len(validated) == len(nodes) - len(splits[0].test)


def members(seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.random(300) < 0.5
    skill = {"good": 1.5, "fair": 1.0, "poor": 0.1}
    return labels, {
        (family, crop): gain * (2 * labels - 1) + rng.normal(0, 1, 300) for family, gain in skill.items() for crop in Crop
    }


def test_the_two_best_of_each_crop_are_combined_in_every_way() -> None:
    labels, validation = members()
    assert {frozenset(kept) for kept in selection.best_families(labels, validation).values()} == {frozenset({"good", "fair"})}
    found = selection.combinations(labels, validation)
    assert len(found) == (4 + 1) * len(selection.RULES)
    areas = [combination.validation_auroc for combination in found]
    assert areas == sorted(areas, reverse=True)
    assert all(member[0] != "poor" for combination in found for member in combination.members)


def test_of_the_pairs_that_validation_cannot_tell_apart_the_cheapest_is_served() -> None:
    labels, validation = members()
    patients = np.arange(300).astype(str)
    for crop in Crop:
        twin = validation["good", crop] + np.random.default_rng(5).normal(0, 0.01, 300)
        validation |= {("lean", crop): twin, ("none", crop): np.zeros(300)}
    costs = {"good": 9.0, "lean": 5.0, "fair": 2.0, "poor": 1.0, "none": 0.1}
    both = (("lean", Crop.FSC), ("lean", Crop.ASC))
    assert selection.served(labels, patients, validation, costs).members == both
    # Beside a good network one that learned nothing does no harm that a test of pairs could see; it is not served all the same.
    idle = selection.fit(labels, validation, (("none", Crop.FSC), ("good", Crop.ASC)), "mean")
    assert idle.validation_auroc == selection.roc_auc_score(labels, validation["good", Crop.ASC])
    better = selection.served(labels, patients, validation, dict.fromkeys(costs, 1.0))
    assert better.validation_auroc >= selection.served(labels, patients, validation, costs).validation_auroc


def test_what_a_network_costs_is_counted_and_not_timed() -> None:
    """ResNet18 at 224 pixels: 1.8 thousand million multiply-adds (He et al. 2016, table 1), which counts three channels and 1000 classes."""
    assert build.multiply_adds("resnet18", 3, 32, 224) == pytest.approx(1.8e3, rel=0.02)
    assert build.multiply_adds("resnet18", 3, 8, 32) > build.multiply_adds("resnet18", 3, 32, 32)


@pytest.mark.parametrize("rule", selection.RULES)
def test_a_rule_gives_probabilities_that_rank_better_than_one_member(rule) -> None:
    labels, validation = members()
    both = (("good", Crop.FSC), ("good", Crop.ASC))
    combination = selection.fit(labels, validation, both, rule)
    found = combination.apply(validation)
    assert 0 <= found.min() <= found.max() <= 1
    alone = [selection.roc_auc_score(labels, validation[member]) for member in both]
    assert combination.validation_auroc > max(alone)
    if rule == "weighted":
        assert sum(combination.weights) == pytest.approx(1)


def test_with_few_nodes_no_cheap_pair_that_is_plainly_worse_is_served(monkeypatch) -> None:
    """Sixty nodes tell nothing apart; what is more than a hundredth worse on them is not served all the same."""
    rng = np.random.default_rng(2)
    labels, patients = np.arange(60) % 2 == 0, np.arange(60).astype(str)
    validation = {
        (family, crop): gain * labels + rng.normal(0, 1, 60)
        for family, gain in {"good": 2.0, "lean": 1.5}.items()
        for crop in Crop
    }
    costs = {"good": 9.0, "lean": 1.0}
    served = selection.served(labels, patients, validation, costs)
    monkeypatch.setattr(selection, "MAX_LOSS", 1.0)
    cheap = selection.served(labels, patients, validation, costs)
    assert {family for family, _ in cheap.members} == {"lean"}
    assert cheap.validation_auroc < served.validation_auroc - 0.01


def test_platt_puts_the_networks_of_folds_on_one_scale() -> None:
    labels, validation = members()
    scores = validation["good", Crop.FSC]
    expected = selection.platt(labels, scores).apply(scores)
    for factor, shift in ((1, 0), (5, 3)):
        found = protocol._pooled(np.tile(labels, 2), [scores, factor * scores + shift])
        np.testing.assert_allclose(found, np.tile(expected, 2), rtol=0.01, atol=0.01)


def test_probabilities_are_those_of_the_cohort_though_training_draws_both_classes_alike() -> None:
    rng = np.random.default_rng(4)
    labels = rng.random(4000) < 0.15
    logits = 2 * (2 * labels - 1) + rng.normal(0, 2, 4000)  # a perfect judge where both classes are as frequent
    scale = selection.platt(labels, logits)
    told = operating_points.mean_probability(scale.apply(logits)[None], 1.0)
    assert told.mean() == pytest.approx(labels.mean(), abs=0.01)
    assert operating_points.expected_calibration_error(labels, told) < 0.02
    assert operating_points.expected_calibration_error(labels, operating_points.mean_probability(logits[None], 1.0)) > 0.1
    assert selection.platt(labels, -logits) == selection.Scale()


@pytest.mark.parametrize("family", ["resnet18", "densenet121", "efficientnet-b0"])
def test_the_scale_becomes_part_of_the_network_that_is_shipped(tmp_path, family) -> None:
    torch.manual_seed(1)
    settings = protocol.settings(family, 1, 8, 32, 1, "cpu")
    task = grid.Task(family, Crop.FSC, 0, settings)
    task.folder(tmp_path).mkdir(parents=True)
    plain = build.build(family, 1, 32).eval()
    save_file({k: t.contiguous() for k, t in plain.state_dict().items()}, task.folder(tmp_path) / "fsc-best.safetensors")
    crops = torch.rand(6, 1, 32, 32)
    with torch.inference_mode():
        before, after = (
            protocol.restore(task, tmp_path, 1, scale)(crops) for scale in (selection.Scale(), selection.Scale(0.5, -1.75))
        )
    np.testing.assert_allclose(after, 0.5 * before - 1.75, atol=2e-3)
