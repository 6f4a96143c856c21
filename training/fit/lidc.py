"""The two-crop method on real CT: lung nodules of LIDC-IDRI with the suspicion of up to four radiologists.

The context crop stands for FSC and the tight one for ASC. Clear cases (three or four readers, median not 3) are judged; the others of the
training patients are trained on with the mean reading as a soft target. Labels are opinions of readers, not pathology.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from alnnode.records import Crop
from training.data import arrays
from training.data import cohort as cohorts
from training.data.cohort import Cohort
from training.fit.grid import Parts, Task
from training.fit.member import TrainSettings, images
from training.networks import build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Scores = npt.NDArray[np.float64]

ARRAYS: Final = "lidc_nodule_2crop.npz"
FOLDS: Final = 5
TORN: Final = 0.23  # of the target around 1/2: mean readings between 2.5 and 3.5
SIDE: Final = 64  # pixels of both crops; the context is kept at the scanner's own pixels, so that size is seen as under FSC
FAMILIES: Final = (build.LITE, "resnet18", "densenet121", "efficientnet-b0")
IMAGENET_SIDE: Final = 224


@dataclass(frozen=True, slots=True)
class Nodules:
    """All nodules as a cohort, with what only this set has.

    Attributes:
        cohort: one variant and one channel; ``malignant`` is a mean reading above 3, ``short_axis`` the diameter in mm.
        target: what is learned: the logistic function of twice the mean reading's distance from 3, so that 1 is 0.02, 2 is 0.12.
        clear: at least three readers whose median is not 3: there ``malignant`` is their median's side.
    """

    cohort: Cohort
    target: npt.NDArray[np.float32]
    clear: npt.NDArray[np.bool_]


def read(folder: Path) -> Nodules:
    """Read the arrays of the set."""
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        context, tight = arrays["context"], arrays["tight"]
        median, mean = arrays["malignancy_median"], arrays["malignancy_mean"]
        clear = (arrays["n_raters"] >= 3) & (median != 3)
        low = (context.shape[1] - SIDE) // 2
        cohort = Cohort(
            fsc=np.ascontiguousarray(context[:, None, None, low : low + SIDE, low : low + SIDE]),
            asc=tight[:, None, None],
            malignant=np.where(clear, median > 3, mean > 3),
            patient=arrays["patient"],
            short_axis=arrays["diameter_mm"],
        )
    return Nodules(cohort, (1 / (1 + np.exp(-2 * (mean - 3)))).astype(np.float32), clear)


def digest(folder: Path) -> str:
    """Return the sha256 (hex) of the arrays of the set, so that what was made of others is not taken up."""
    return hashlib.sha256((folder / ARRAYS).read_bytes()).hexdigest()


def folds(nodules: Nodules, seed: int) -> list[npt.NDArray[np.intp]]:
    """Return the rows of each fold, split by patient."""
    cohort = nodules.cohort
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    stratum = np.where(nodules.clear, 1 + cohort.malignant, 0)
    return [test for _, test in splitter.split(stratum, stratum, cohort.patient)]


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of one fold of the outer cross-validation: the next fold validates, the other three train."""

    train: npt.NDArray[np.intp]
    validation: npt.NDArray[np.intp]
    test: npt.NDArray[np.intp]

    @classmethod
    def of(cls, nodules: Nodules, fold: int, seed: int) -> Split:
        """Return the split whose test rows are fold ``fold``; only clear cases validate and test."""
        every = folds(nodules, seed)
        after = (fold + 1) % FOLDS
        rest = np.sort(np.concatenate([rows for n, rows in enumerate(every) if n not in {fold, after}]))
        # Where the readers were torn there is nothing to learn.
        rest = rest[np.abs(nodules.target[rest] - 0.5) >= TORN]
        return cls(rest, *(rows[nodules.clear[rows]] for rows in (every[after], every[fold])))


def parts(folder: Path, seed: int, fold: int) -> Parts:
    """Return the nodules of one fold.

    Raises:
        LeakageError: a patient or a picture is in two of them.
    """
    nodules = read(folder)
    split = Split.of(nodules, fold, seed)
    train, validation, test = (cohorts.take(nodules.cohort, rows) for rows in (split.train, split.validation, split.test))
    cohorts.check_leakage(train=train, validation=validation, test=test)
    return Parts(train, validation, test, nodules.target[split.train])


def tasks(families: Sequence[str], seed: int, epochs: int) -> list[Task]:
    """Return every network to train, family by family."""
    return [
        Task(family, crop, fold, settings_of(family, seed, epochs))
        for family in families
        for crop in Crop
        for fold in range(FOLDS)
    ]


def settings_of(family: str, seed: int, epochs: int) -> TrainSettings:
    """Return how a family is trained, the same for all folds; settled on validation losses, before any test score was looked at."""
    base = TrainSettings(
        batch=16,
        architecture=family,
        epochs=epochs,
        seed=seed,
        output_stride=32,
        patience=epochs,
        bf16=not family.startswith("eff"),
    )
    # Weights from ImageNet are near where they should be: half the rate.
    return replace(base, learning_rate=5e-4) if family == build.LITE else base


def frozen_features(nodules: Nodules, work: Path, report: Callable[[], None]) -> dict[Crop, npt.NDArray[np.float32]]:
    """Return the ImageNet features (N, 1280) of the clear cases under each crop, from a network that is not trained; NaN elsewhere."""
    found = {}
    rows = np.flatnonzero(nodules.clear)
    for crop in Crop:
        path = work / f"features-{crop.value}.npz"
        if not path.exists():
            model = build.Lite0().eval()
            source = images(nodules.cohort, crop)[rows, 0]
            batches = [torch.from_numpy(source[n : n + 32]).float() / 255 for n in range(0, len(source), 32)]
            features = np.full((len(nodules.clear), 1280), np.nan, np.float32)
            features[rows] = torch.cat([model.features(batch, IMAGENET_SIDE / SIDE) for batch in batches]).numpy()
            arrays.save(path, {"features": features})
        with np.load(path, allow_pickle=False) as kept:
            found[crop] = kept["features"]
        report()
    return found


def regression(nodules: Nodules, split: Split, features: npt.NDArray[np.float32]) -> tuple[Scores, Scores]:
    """Return a logistic regression's scores on validation and test, fitted on the clear cases of the training patients."""
    rows = split.train[nodules.clear[split.train]]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(features[rows], nodules.cohort.malignant[rows])
    return model.decision_function(features[split.validation]), model.decision_function(features[split.test])
