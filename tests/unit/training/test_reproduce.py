"""The reproduction in its tiny profile: frozen terms, the size of the cohort, selection on validation."""

import re
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from alnnode.model import bundle
from alnnode.records import Crop
from training.data import cohort as cohorts
from training.data import node_features
from training.data.box_features import BOX_FEATURES
from training.evaluate import calibration
from training.fit import ablation, grid, ledger, protocol, reproduce, reproduction_terms, selection
from training.fit.protocol import PAPER
from training.networks import build, inference
from training.report import ablation_report, bundle_export, lidc_report, reproduce_report


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The cache folder of the tiny profile, so that its phantoms are drawn once. It grows to 850 MB."""
    folder = tmp_path_factory.mktemp("tiny")
    yield folder
    shutil.rmtree(folder)


def test_the_whole_protocol_runs_in_its_tiny_profile_and_a_second_run_changes_nothing(work, tmp_path) -> None:
    plan = reproduction_terms.read_plan("tiny", work, processes=0)
    said: list[str] = []

    def report(name: str, total: int):
        return lambda: said.append(name)

    outcome = reproduce.run_reproduction(plan, report)
    digest = bundle_export.write_bundle(outcome.bundle, tmp_path / "bundle")
    nodes = outcome.nodes.cohort
    assert (len(nodes), int(nodes.malignant.sum())) == (plan.profile.nodes, plan.profile.malignant)
    assert said.count("networks") == len(plan.profile.families) * len(Crop) * (plan.profile.folds + plan.profile.seeds - 1)
    assert said.count("pretraining") == len(plan.profile.families) * len(Crop)
    assert any(row.name == f"densenet121 FSC + ASC, mean, second training, seed {plan.seed + 1}" for row in outcome.rows)
    loaded = bundle.load(tmp_path / "bundle")
    assert loaded.digest == digest
    assert next(iter(outcome.fresh)) == "all"
    assert outcome.fresh["all"].nodes >= sum(found.nodes for name, found in outcome.fresh.items() if name != "all")
    assert loaded.identity.operating_point.specificity.value == outcome.fresh["all"].specificity.value
    assert loaded.crop_settings == plan.crops
    assert (loaded.crop_settings.slices, loaded.crop_settings.blood_pool) == (3, True)
    networks = ledger.networks_digest(loaded.manifest)
    scored = ledger.append_scoring(
        tmp_path / "ledger.jsonl", plan, networks, reproduce_report.paper_auroc(outcome), date(2026, 1, 2)
    )
    text = reproduce_report.markdown(plan, outcome, digest, "a test", scored)
    assert "The test set was scored once" in text
    assert f"| 2026-01-02 | tiny | `{scored[0].code}` | `{networks[:12]}` |" in text
    assert digest in text
    assert re.search(
        r"AUROC on validation is [01]\.\d+( with \d+ million multiply-adds a node\. The best pair, .* p = [01]\.\d+|; no other pair was better)",
        text,
    )
    assert "This is the reduced profile `tiny`" in text
    for row in ("densenet121, ASC", "short axis alone", "logistic regression on the generator's parameters"):
        assert re.search(rf"^\| [^|]*{re.escape(row)}.* \| \d", text, re.MULTILINE), row
    assert 2 <= len(outcome.chance) <= reproduce.PERMUTATIONS
    assert len(set(outcome.chance)) > 1  # another permutation gives another network
    assert re.search(r"the AUROC is about 0\.5\. Found: mean [01]\.\d+ \(", text)
    assert f"{PAPER[1]} less {outcome.member}" in text
    again = reproduce.run_reproduction(plan, report)
    assert bundle_export.write_bundle(again.bundle, tmp_path / "again") == digest
    assert again.seconds > outcome.seconds > 0
    for one, other in zip(outcome.rows, again.rows, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)


def test_the_ablation_leaves_out_inputs_and_never_looks_at_the_test_nodes(work) -> None:
    plan = reproduction_terms.read_plan("tiny", work, processes=0)
    whole = reproduction_terms.fold_data(plan, 0)
    complete, no_blood, one_slice, neither, _ = ablation.variants(plan.crops)
    assert ablation.channels_of(complete, plan.crops) == list(range(plan.crops.channels))
    assert ablation.channels_of(no_blood, plan.crops) == list(range(9))
    assert ablation.channels_of(one_slice, plan.crops) == [0, 1, 2, 9]
    seen = ablation.variant_data(plan, neither, 0)
    assert seen.train.fsc.shape[2] == 3
    assert seen.train.patients | seen.test.patients == whole.train.patients | whole.validation.patients
    found = ablation.run_ablation(plan, "resnet18", 1, lambda _name, _total: lambda: None)
    assert [row.name for row in found.rows] == [*(variant.name for variant in ablation.variants(plan.crops)), ablation.FLIPPED]
    assert [row.less_complete is None for row in found.rows] == [True, *[False] * 5]
    facts = {"seed": plan.seed, "command": "c", "family": "resnet18", "epochs": 1, "nodes": found.nodes, "device": "a test"}
    text = ablation_report.markdown(found.rows, **facts)
    assert len(re.findall(r"^\| .* \| [01]\.\d+ \([01]\.\d+-[01]\.\d+\) \|", text, re.MULTILINE)) == 6
    assert text == ablation_report.markdown(
        ablation.run_ablation(plan, "resnet18", 1, lambda _name, _total: lambda: None).rows, **facts
    )


@pytest.mark.parametrize("steps", [1, 9, 30, 128, 840])
def test_averaged_weights_are_not_those_of_the_first_steps(steps) -> None:
    decay = protocol.averaging_for(steps)
    assert decay ** max(steps - 1, 1) < 0.05 or decay == 0
    assert protocol.averaging_for(840) == protocol.AVERAGING  # as the reproduction


def test_a_variant_that_knows_less_has_a_negative_difference() -> None:
    labels = np.tile([False, True], 100)
    rng = np.random.default_rng(0)
    crops = np.zeros((200, 1, 1, 2, 2), np.uint8)
    nodes = cohorts.Cohort(crops, crops, labels, np.array([f"1:{n // 2}" for n in range(200)]), np.zeros(200, np.float32))
    good, bad = (np.where(labels, shift, -shift) + rng.normal(0, 1, 200) for shift in (1.0, 0.2))
    complete, less = ablation.compare_variants(nodes, {"complete": [good, good], "less": [bad, bad]})
    assert complete.less_complete is None
    assert less.less_complete.difference.high < 0
    assert less.areas[2].value < complete.areas[2].value


@pytest.mark.parametrize(("page", "template"), [("reproduction", reproduce_report._TEXT), ("lidc", lidc_report._TEXT)])
def test_a_page_that_a_command_writes_has_the_words_of_its_template(page: str, template: str) -> None:
    text = (Path(__file__).parents[3] / "docs" / f"{page}.md").read_text(encoding="utf-8")
    written = re.sub(r"^> .*?\n\n", "", text, flags=re.MULTILINE | re.DOTALL)  # notes, which are written by hand
    assert re.fullmatch(re.sub(r"\\\{\w+\\\}", ".*?", re.escape(template)), written, re.DOTALL)


def test_the_terms_have_the_shape_of_the_paper_and_a_changed_phantom_stops_it(tmp_path) -> None:
    for name in ("full", "reduced"):
        profile = reproduction_terms.read_plan(name, tmp_path).profile
        assert (profile.patients, profile.nodes, profile.malignant, len(profile.families)) == (523, 1128, 538, 6)
    changed = tmp_path / "changed.toml"
    changed.write_text(reproduction_terms.TERMS.read_text().replace(cohorts.phantom_code(), "0" * 64))
    with pytest.raises(reproduction_terms.ChangedTermsError, match="To freeze the new code"):
        reproduction_terms.read_plan("tiny", tmp_path, terms=changed)


def pool(patients: int = 30, each: int = 5) -> node_features.FeatureCohort:
    rng = np.random.default_rng(0)
    count = patients * each
    crops = rng.integers(0, 255, (count, 1, 1, 2, 2), np.uint8)
    part = cohorts.Cohort(
        crops, crops, rng.random(count) < 0.5, np.repeat([f"1:{n}" for n in range(patients)], each), np.zeros(count, np.float32)
    )
    columns = [
        np.zeros((count, len(names)), kind)
        for names, kind in (
            (node_features.MEASURED_FEATURES, float),
            (BOX_FEATURES, float),
            (node_features.GENERATOR_PARAMETERS, float),
        )
    ]
    return node_features.FeatureCohort(part, *columns, np.full((count, len(node_features.ACQUISITION)), "x"))


def test_the_cohort_has_every_patient_and_the_numbers_that_were_asked() -> None:
    chosen = node_features.choose_nodes(pool(), 80, 38, seed=1)
    assert (len(chosen), int(chosen.cohort.malignant.sum()), len(chosen.cohort.patients)) == (80, 38, 30)
    with pytest.raises(node_features.ShortageError, match="140 nodes of class True"):
        node_features.choose_nodes(pool(), 145, 140, seed=1)


def test_folds_share_their_test_patients_and_no_others() -> None:
    nodes = pool()
    splits = [reproduction_terms.split_by_patient(nodes, fold, 4) for fold in range(4)]
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
    found = selection.rank_combinations(labels, validation)
    assert len(found) == (4 + 1) * len(selection.RULES)
    areas = [combination.validation_auroc for combination in found]
    assert areas == sorted(areas, reverse=True)
    assert all(member[0] != "poor" for combination in found for member in combination.members)


def test_few_validation_patients_allow_no_rule_that_is_fitted() -> None:
    labels, validation = members()
    many, few = np.arange(300).astype(str), np.repeat(np.arange(30), 10).astype(str)
    assert selection.rules_for(many) == selection.RULES
    found = selection.rank_combinations(labels, validation, selection.rules_for(few))
    assert {combination.rule for combination in found} == {"mean"}


def test_the_cheapest_pair_without_a_significant_difference_is_served() -> None:
    labels, validation = members()
    patients = np.arange(300).astype(str)
    for crop in Crop:
        twin = validation["good", crop] + np.random.default_rng(5).normal(0, 0.01, 300)
        validation |= {("lean", crop): twin, ("none", crop): np.zeros(300)}
    costs = {"good": 9.0, "lean": 5.0, "fair": 2.0, "poor": 1.0, "none": 0.1}
    both = (("lean", Crop.FSC), ("lean", Crop.ASC))
    assert selection.served_pair(labels, patients, validation, costs).members == both
    # A pair with a network that learned nothing does not differ significantly from the best pair, but that network must not be served.
    idle = selection.fit_combination(labels, validation, (("none", Crop.FSC), ("good", Crop.ASC)), "mean")
    assert idle.validation_auroc == selection.roc_auc_score(labels, validation["good", Crop.ASC])
    better = selection.served_pair(labels, patients, validation, dict.fromkeys(costs, 1.0))
    assert better.validation_auroc >= selection.served_pair(labels, patients, validation, costs).validation_auroc


def test_the_cost_of_a_network_is_counted_in_multiply_adds() -> None:
    """ResNet18 at 224 pixels has 1.8 billion multiply-adds (He et al. 2016, table 1) with three channels and 1000 classes."""
    assert build.multiply_adds("resnet18", 3, 32, 224) == pytest.approx(1.8e3, rel=0.02)
    assert build.multiply_adds("resnet18", 3, 8, 32) > build.multiply_adds("resnet18", 3, 32, 32)


@pytest.mark.parametrize("rule", selection.RULES)
def test_a_rule_gives_probabilities_that_rank_better_than_one_member(rule) -> None:
    labels, validation = members()
    both = (("good", Crop.FSC), ("good", Crop.ASC))
    combination = selection.fit_combination(labels, validation, both, rule)
    found = combination.apply(validation)
    assert 0 <= found.min() <= found.max() <= 1
    alone = [selection.roc_auc_score(labels, validation[member]) for member in both]
    assert combination.validation_auroc > max(alone)
    if rule == "weighted":
        assert sum(combination.weights) == pytest.approx(1)


def test_with_few_nodes_no_cheap_pair_that_is_plainly_worse_is_served(monkeypatch) -> None:
    """With sixty nodes no difference is significant; a pair whose AUROC is more than 0.01 lower must not be served."""
    rng = np.random.default_rng(2)
    labels, patients = np.arange(60) % 2 == 0, np.arange(60).astype(str)
    validation = {
        (family, crop): gain * labels + rng.normal(0, 1, 60)
        for family, gain in {"good": 2.0, "lean": 1.5}.items()
        for crop in Crop
    }
    costs = {"good": 9.0, "lean": 1.0}
    served = selection.served_pair(labels, patients, validation, costs)
    monkeypatch.setattr(selection, "MAX_LOSS", 1.0)
    cheap = selection.served_pair(labels, patients, validation, costs)
    assert {family for family, _ in cheap.members} == {"lean"}
    assert cheap.validation_auroc < served.validation_auroc - 0.01


def test_platt_puts_the_networks_of_folds_on_one_scale() -> None:
    labels, validation = members()
    scores = validation["good", Crop.FSC]
    patients = np.repeat(np.arange(60), 5).astype(str)
    expected = selection.cross_fit(labels, scores, patients)
    for factor, shift in ((1, 0), (5, 3)):
        found = protocol._pooled(np.tile(labels, 2), np.tile(patients, 2), [scores, factor * scores + shift])
        np.testing.assert_allclose(found, np.tile(expected, 2), rtol=0.01, atol=0.01)


def test_probabilities_are_those_of_the_cohort_though_training_draws_both_classes_alike() -> None:
    rng = np.random.default_rng(4)
    labels = rng.random(4000) < 0.15
    logits = 2 * (2 * labels - 1) + rng.normal(0, 2, 4000)  # calibrated if both classes are equally frequent
    scale = selection.fit_platt_scale(labels, logits)
    told = inference.mean_probability(scale.apply(logits)[None], 1.0)
    assert told.mean() == pytest.approx(labels.mean(), abs=0.01)
    assert calibration.expected_calibration_error(labels, told) < 0.02
    assert calibration.expected_calibration_error(labels, inference.mean_probability(logits[None], 1.0)) > 0.1
    assert selection.fit_platt_scale(labels, -logits) == selection.PlattScale()


@pytest.mark.parametrize("family", ["resnet18", "densenet121", "efficientnet-b0"])
def test_the_scale_becomes_part_of_the_network_that_is_shipped(tmp_path, family) -> None:
    torch.manual_seed(1)
    settings = protocol.TrainingOptions(1, 8, 32, 1, "cpu").for_family(family)
    task = grid.TrainingTask(family, Crop.FSC, 0, settings)
    task.folder(tmp_path).mkdir(parents=True)
    plain = build.build(family, 1, 32).eval()
    save_file({k: t.contiguous() for k, t in plain.state_dict().items()}, task.folder(tmp_path) / "fsc-weights.safetensors")
    crops = torch.rand(6, 1, 32, 32)
    with torch.inference_mode():
        before, after = (
            protocol.restore_calibrated(task, tmp_path, 1, scale)(crops)
            for scale in (selection.PlattScale(), selection.PlattScale(0.5, -1.75))
        )
    np.testing.assert_allclose(after, 0.5 * before - 1.75, atol=2e-3)


def test_no_node_takes_part_in_fitting_its_own_scale() -> None:
    labels, validation = members()
    scores, patients = validation["fair", Crop.FSC], np.repeat(np.arange(60), 5).astype(str)
    fitted = selection.cross_fit(labels, scores, patients)
    second = np.unique(patients, return_inverse=True)[1] % 2 == 1
    turned = np.where(second, ~labels, labels)  # the labels of one half change: only the scale of the other half follows
    found = selection.cross_fit(turned, scores, patients)
    np.testing.assert_array_equal(found[second], fitted[second])
    assert np.abs(found[~second] - fitted[~second]).max() > 0.1
    whole = selection.fit_platt_scale(labels, scores).apply(scores)
    assert np.corrcoef(fitted, whole)[0, 1] > 0.98
    one_class = np.repeat(np.arange(60) % 2 == 0, 5)  # each half of the patients has one class
    sides = np.array([f"{n:03d}" for n in np.repeat(np.arange(60), 5)])
    np.testing.assert_array_equal(
        selection.cross_fit(one_class, scores, sides), selection.fit_platt_scale(one_class, scores).apply(scores)
    )


def test_the_ledger_counts_every_other_pair_of_networks_and_not_a_resumed_run(tmp_path) -> None:
    path = tmp_path / "docs" / "ledger.jsonl"
    plan = reproduction_terms.read_plan("tiny", tmp_path)
    scored = [
        ledger.append_scoring(path, plan, networks, "0.9", date(2026, 1, day))
        for day, networks in ((1, "a" * 64), (2, "a" * 64), (3, "b" * 64))
    ]
    assert [len(entries) for entries in scored] == [1, 1, 2]
    other = reproduction_terms.read_plan("small", tmp_path)
    assert len(ledger.append_scoring(path, other, "c" * 64, "0.9", date(2026, 1, 4))) == 1
    assert len(path.read_text().splitlines()) == 3
    said = reproduce_report._scorings(scored[-1])
    assert said.startswith("**The test set was scored 2 times**")
