"""docs/reproduction.md, written by the run whose figures it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from training.evaluate import operating_points, roc, subgroups, tables
from training.fit.demo_bundle import SENSITIVITY_TARGET
from training.fit.protocol import PAPER as PAPERS
from training.fit.protocol import SHORT_AXIS

if TYPE_CHECKING:
    from training.evaluate.fresh_phantoms import FreshMetrics
    from training.evaluate.tables import ModelRow
    from training.fit.ledger import LedgerEntry
    from training.fit.reproduce import ReproductionResult
    from training.fit.reproduction_terms import ReproductionPlan

# Park et al., Curr Oncol 2024;31(4):2278, DenseNet121-FSC + DenseNet121-ASC.
BOXED = "logistic regression on one slice and the box"
MEASURED = "logistic regression on measured morphology"
DRAWN = "logistic regression on the generator's parameters"
PAPER = {"AUROC": 0.968, "accuracy": 0.938, "sensitivity": 0.980, "specificity": 0.903}


def _covers(plan: ReproductionPlan) -> str:
    """Return what the digest covers when the card has figures of located nodes."""
    if not plan.detection:
        return ""
    return (
        "The digest covers the model card with the figures of `python -m training evaluate-detector --bundle runs/reproduction/bundle "
        f"--seed {plan.detection['seed']} --patients {plan.detection['volumes']} --out found.json`. "
        f"`python -m training reproduce --profile {plan.profile.name} --figures found.json` writes them into the card. Without that step the networks are "
        "the same, but the card and so the digest differ. "
    )


def paper_auroc(outcome: ReproductionResult) -> str:
    """Return the AUROC of the paper's pair on the test nodes with its interval, for the ledger."""
    row = next(row for row in outcome.rows if row.name == PAPERS[1])
    return tables.format_interval(roc.auroc(outcome.test.malignant, row.scores, outcome.test.patient))


def markdown(
    plan: ReproductionPlan, outcome: ReproductionResult, digest: str, hardware: str, scorings: list[LedgerEntry]
) -> str:
    """Return the document; ``scorings``: all that the ledger holds for the cohort."""
    profile, test = plan.profile, outcome.test
    labels, patients = test.malignant, test.patient
    rows = {row.name: row for row in outcome.rows}
    best = rows[outcome.best]
    harder, shifted = outcome.shifted
    return _TEXT.format(
        covers=_covers(plan),
        profile=profile.name,
        whole=_whole(plan),
        seed=plan.seed,
        hardware=hardware,
        minutes=f"{outcome.seconds / 60:.0f}",
        nodes=len(outcome.nodes),
        malignant=int(outcome.nodes.cohort.malignant.sum()),
        benign=int((~outcome.nodes.cohort.malignant).sum()),
        patients=len(outcome.nodes.cohort.patients),
        tested=len(test),
        tested_patients=len(test.patients),
        epochs=profile.epochs,
        folds=profile.folds,
        pixels=profile.pixels,
        stride=profile.output_stride,
        table=tables.model_table(labels, patients, outcome.rows),
        chance=_chance(outcome),
        ceiling=tables.format_interval(roc.auroc(labels, rows[DRAWN].scores, patients)),
        measured=tables.format_interval(roc.auroc(labels, rows[MEASURED].scores, patients)),
        tests="\n".join(f"- {line}" for line in _tests(outcome, rows)),
        paper=_paper(outcome, best),
        ece=f"{outcome.calibration[0]:.3f}",
        brier=f"{outcome.calibration[1]:.3f}",
        groups="\n".join(_group(group) for group in outcome.groups),
        harder=len(harder),
        harder_patients=len(harder.patients),
        shifted=tables.model_table(harder.malignant, harder.patient, shifted),
        scorings=_scorings(scorings),
        fresh="\n".join(_fresh(name, figures) for name, figures in outcome.fresh.items()),
        fresh_seed=plan.fresh_seed,
        target=f"{SENSITIVITY_TARGET:.2f}",
        operating=" ".join(outcome.bundle.notes),
        slices=plan.crops.slices,
        step=f"{plan.crops.slice_step_mm:g}",
        digest=digest,
        exported=outcome.exported,
        choice=outcome.choice,
        pretraining=_pretraining(plan, outcome),
    )


def _pretraining(plan: ReproductionPlan, outcome: ReproductionResult) -> str:
    """Return from which weights the networks start, and what pretraining taught them."""
    profile = plan.profile
    if not profile.pretraining:
        return "The networks start from random weights."
    said = (
        f"The networks start from pretrained weights. In {profile.pretraining_epochs} epochs they learned to estimate the parameters with which the nodes of "
        f"{profile.pretraining} other phantoms (seed {plan.pretraining_seed}) were drawn. Pretraining uses no label and no phantom of this cohort; the command "
        "stops when a phantom is in both. But these parameters nearly determine the class (see the regression on them below), so pretraining is close to learning "
        "from more labelled drawings. A hospital has no such parameters of its nodes. The table has the share of the variance of each parameter that the networks explain. "
        "It was measured on every tenth of these phantoms, which was held out:"
    )
    lines = [
        said,
        "",
        "| parameter | " + " | ".join(crop.value.upper() for crop in outcome.learned) + " |",
        "|---" * (1 + len(outcome.learned)) + "|",
    ]
    names = next(iter(outcome.learned.values()))
    lines += [f"| {name} | " + " | ".join(f"{of[name]:.2f}" for of in outcome.learned.values()) + " |" for name in names]
    return "\n".join(lines)


def _scorings(scorings: list[LedgerEntry]) -> str:
    """Return how often the test set was scored, from the ledger."""
    said = "The test set was scored once" if len(scorings) == 1 else f"**The test set was scored {len(scorings)} times**"
    lines = [
        f"{said}, according to [the ledger](reproduction-ledger.jsonl), to which the command appends:",
        "",
        "| day | profile | training code | networks | AUROC of the paper's pair |",
        "|---|---|---|---|---|",
        *(f"| {entry.day} | {entry.profile} | `{entry.code}` | `{entry.networks}` | {entry.auroc} |" for entry in scorings),
    ]
    return "\n".join(lines)


def _fresh(name: str, found: FreshMetrics) -> str:
    figures = " | ".join(tables.format_interval(value) for value in (found.auroc, found.sensitivity, found.specificity))
    return f"| {name} | {found.nodes} | {found.malignant} | {figures} | {found.at_target:.3f} |"


def _whole(plan: ReproductionPlan) -> str:
    if plan.profile.name == "full":
        return "This is the whole profile `full`."
    return (
        f"**This is the reduced profile `{plan.profile.name}`, not the profile `full`**: "
        "[training/fit/reproduction.toml](../training/fit/reproduction.toml) lists the differences. Its figures do not stand for those of `full`."
    )


def _tests(outcome: ReproductionResult, rows: dict[str, ModelRow]) -> list[str]:
    labels, patients = outcome.test.malignant, outcome.test.patient
    pairs = [(outcome.best, other) for other in (outcome.single, SHORT_AXIS, BOXED, MEASURED)]
    pairs += [(PAPERS[1], outcome.member), (PAPERS[1], MEASURED)]
    return [tables.describe_comparison(labels, patients, rows[one], rows[other]) for one, other in pairs]


def _chance(outcome: ReproductionResult) -> str:
    """Return the AUROCs of networks that were trained and judged on permuted labels; the interval is that of the mean over permutations."""
    found = np.array(outcome.chance)
    half = float(stats.t.ppf(0.975, len(found) - 1) * stats.sem(found))
    each = ", ".join(f"{value:.3f}" for value in found)
    return f"mean {found.mean():.3f} ({found.mean() - half:.3f}-{found.mean() + half:.3f}, Student's t over the permutations); each: {each}"


def _paper(outcome: ReproductionResult, best: ModelRow) -> str:
    labels, patients = outcome.test.malignant, outcome.test.patient
    right = best.called == labels
    found = {
        "AUROC": roc.auroc(labels, best.scores, patients),
        "accuracy": operating_points.clustered_proportion(right, patients),
        "sensitivity": operating_points.clustered_proportion(right[labels], patients[labels]),
        "specificity": operating_points.clustered_proportion(right[~labels], patients[~labels]),
    }
    lines = ["| figure | paper (patients) | here (drawings) | |", "|---|---|---|---|"]
    for name, figure in found.items():
        if figure.value >= PAPER[name]:
            said = "met"
        elif figure.high >= PAPER[name]:
            said = "not met; the paper's lies within the interval"
        else:
            said = "not met"
        lines.append(f"| {name} | {PAPER[name]:.3f} | {tables.format_interval(figure)} | {said} |")
    return "\n".join(lines)


def _group(group: subgroups.Subgroup) -> str:
    figure = tables.format_interval(group.auroc) if group.auroc else "too few of a class, or patients"
    return f"| {group.name} | {group.nodes} | {group.malignant} | {figure} |"


_TEXT = """# The reproduction

This page has the figures of a protocol after the abstract of Park et al. (Curr Oncol 2024;31(4):2278), run on phantoms instead of patients. **It shows that the
protocol runs, and its figures on these phantoms; it shows nothing about patients.** {whole}

Written by `python -m training reproduce --profile {profile}`, seed {seed}, on {hardware}, in {minutes} minutes, summed over all runs that led to
this page. The command writes everything on this page except quoted notes.

Park et al. compare three families of networks under two crops on 1128 nodes of 523 patients. Their images and model are
not public. This run has {nodes} nodes ({malignant} malignant, {benign} benign) of {patients} phantoms. Published feature
distributions fix the difficulty of the phantom ([phantom.md](phantom.md)). `training/fit/reproduction.toml` froze it, with the digest of the phantom's code, before any network was trained on this cohort.
It was not tuned to any model or to any figure below. The baselines show how much of it is easy.

The split is by patient: a fifth tests and is evaluated once, a fifth validates, the rest trains. The networks were trained on {folds} of the four folds, with {epochs} epochs,
{pixels} x {pixels} pixels and output stride {stride}. The networks see {slices} slices {step} mm apart and the attenuation of the blood. The weights are averaged, so no epoch is
chosen. Members, rule and operating point (Youden's index) are chosen on validation, on logits whose scale was fitted on other validation patients.
Intervals: AUROC by DeLong with clusters of patients (Obuchowski 1997), the others Wilson's with the patients' design effect.

{pretraining}

## Test set: {tested} nodes of {tested_patients} phantoms

{table}

{tests}

Permuted labels check for leaks. The labels of the whole cohort are permuted before the split, and the networks are trained and judged on
these labels. Without a leak, the AUROC is about 0.5. Found: {chance}.
Before training, the command also compares all crops of different patients by their fine structure, and stops when two show nearly the same image.

{scorings}

Expected calibration error of the chosen combination {ece}, Brier score {brier}.

## The paper's figures

The two columns are not comparable: the paper's figures are of patients, these of drawings. The table shows only which figure of the paper was
reached here. It is no evidence about patients.

{paper}

For orientation: a logistic regression on the parameters with which the nodes were drawn has an AUROC of {ceiling}, one on measured
morphology {measured}. These are linear models, not bounds. The paired tests above state whether the networks differ from regressions on
features of the image.

## Subgroups of the chosen combination

| subgroup | nodes | malignant | AUROC |
|---|---|---|---|
{groups}

## The operating point on fresh phantoms

Nothing was trained, chosen or fitted on these phantoms of seed {fresh_seed}. The sensitivity and the specificity of the first row are those of every report of the bundle. The
last column is the specificity where the ROC curve of these nodes has a sensitivity of {target}.

| contrast phase | nodes | malignant | AUROC | sensitivity | specificity | at sensitivity {target} |
|---|---|---|---|---|---|---|
{fresh}

{operating}

If only the share of malignant nodes is lower than here, sensitivity and specificity do not change, but most positive results are false, and the probabilities are too
high.

## A harder cohort: thicker slices, more noise, no contrast ({harder} nodes of {harder_patients} phantoms)

{shifted}

The operating points are those of the first cohort. The short axis counts as malignant from 10 mm.

## The bundle

Exported: {exported}, digest `{digest}`. {covers}`alnnode check` shows the digest of the bundle that a node runs.

A node serves the mean of one network of each crop. The bundle holds the cheapest of these pairs that a paired test on validation does not distinguish from the best
([adr/0005](adr/0005-the-cheapest-pair-that-validation-cannot-tell-from-the-best.md)). {choice}.
"""
