"""docs/reproduction.md, written by the run whose figures it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from training.evaluate import operating_points, roc, subgroups, tables
from training.fit.protocol import PAPER as PAPERS
from training.fit.protocol import SHORT_AXIS

if TYPE_CHECKING:
    from training.evaluate.tables import ModelRow
    from training.fit.reproduce import ReproductionResult
    from training.fit.reproduction_terms import ReproductionPlan

# Park et al., Curr Oncol 2024;31(4):2278, DenseNet121-FSC + DenseNet121-ASC.
MEASURED = "logistic regression on measured morphology"
DRAWN = "logistic regression on the generator's parameters"
PAPER = {"AUROC": 0.968, "accuracy": 0.938, "sensitivity": 0.980, "specificity": 0.903}


def _covers(plan: ReproductionPlan) -> str:
    """Say what the digest covers where figures of nodes that were found are in the card."""
    if not plan.detection:
        return ""
    return (
        "It covers the model card with the figures of `python -m training evaluate-detector --bundle runs/reproduction/bundle "
        f"--seed {plan.detection['seed']} --patients {plan.detection['volumes']} --out found.json`, put in by "
        f"`python -m training reproduce --profile {plan.profile.name} --figures found.json`; without that step the networks are the same, the card "
        "and so the digest are not. "
    )


def markdown(plan: ReproductionPlan, outcome: ReproductionResult, digest: str, hardware: str) -> str:
    """Return the document."""
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
        digest=digest,
        exported=outcome.exported,
        choice=outcome.choice,
    )


def _whole(plan: ReproductionPlan) -> str:
    if plan.profile.name == "full":
        return "This is the whole protocol."
    return (
        f"**This is the reduced profile `{plan.profile.name}`, not the whole protocol**: what it leaves out is in "
        "[training/fit/reproduction.toml](../training/fit/reproduction.toml). Its figures are those of this profile and must not be read as those of `full`."
    )


def _tests(outcome: ReproductionResult, rows: dict[str, ModelRow]) -> list[str]:
    labels, patients = outcome.test.malignant, outcome.test.patient
    pairs = [(outcome.best, other) for other in (outcome.single, SHORT_AXIS, MEASURED)] + [(PAPERS[1], outcome.member)]
    return [tables.describe_comparison(labels, patients, rows[one], rows[other]) for one, other in pairs]


def _chance(outcome: ReproductionResult) -> str:
    """Say what networks make of labels that were dealt out anew.

    One deal agrees with the size of the nodes by chance, and a network that learns so little ranks by size, one way or the other. So the
    interval is that of the mean over deals, and not one over test nodes.
    """
    found = np.array(outcome.chance)
    half = float(stats.t.ppf(0.975, len(found) - 1) * stats.sem(found))
    each = ", ".join(f"{value:.3f}" for value in found)
    return f"mean {found.mean():.3f} ({found.mean() - half:.3f}-{found.mean() + half:.3f}, Student's t over the deals); each: {each}"


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

Written by `python -m training reproduce --profile {profile}`, seed {seed}, on {hardware}, in {minutes} minutes, all runs that led
here together. Nothing in this file is typed by hand. {whole}

Park et al. (Curr Oncol 2024;31(4):2278) compare three families of networks under two crops on 1128 nodes of 523 patients. Their images and model are
not public. This runs their protocol on drawings: {nodes} nodes ({malignant} malignant, {benign} benign) of {patients} phantoms. **It shows that the
protocol runs and what it gives on this phantom; it says nothing about patients.** How hard the phantom is was fixed from published feature
distributions ([phantom.md](phantom.md)) and frozen with the digest of its code in `training/fit/reproduction.toml` before any network was trained on this cohort;
it was tuned to no model and to none of the figures below. The baselines show how much of it is easy.

Split by patient: a fifth tests and is looked at once, a fifth validates, the rest trains; {folds} of four folds were run. {epochs} epochs,
{pixels} x {pixels} pixels, output stride {stride}. Members, rule and operating point (Youden's index) are chosen on validation.
Intervals: AUROC by DeLong with clusters of patients (Obuchowski 1997), the others Wilson's with the patients' design effect.

## Test set: {tested} nodes of {tested_patients} phantoms

{table}

{tests}

Labels dealt out anew teach a network nothing, if nothing leaks. AUROC on the right labels: {chance}. One deal agrees with the size of the nodes by
chance, and a network that learns so little ranks by size, upwards or downwards: single values scatter widely.

Expected calibration error of the chosen combination {ece}, Brier score {brier}.

## Beside the paper

{paper}

What these drawings give at the most: a logistic regression on the very parameters that the nodes were drawn with has an AUROC of {ceiling}, one on what
can be measured of them {measured}. A figure above the first would be luck; below the second, the networks have not learned
what there is to learn from so few nodes in so few epochs.

## Subgroups of the chosen combination

| subgroup | nodes | malignant | AUROC |
|---|---|---|---|
{groups}

## A harder cohort: thicker slices, more noise, no contrast ({harder} nodes of {harder_patients} phantoms)

{shifted}

The operating points are those of the first cohort; the short axis is called at 10 mm.

## The bundle

Exported: {exported}, digest `{digest}`. {covers}`alnnode check` shows the digest of the bundle that a node runs.

A node serves the mean of one network of each crop. Of these pairs the bundle holds the cheapest that validation cannot tell from the best
([adr/0005](adr/0005-the-cheapest-pair-that-validation-cannot-tell-from-the-best.md)): {choice}.
"""
