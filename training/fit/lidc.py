"""The two-crop method on real CT: lung nodules of LIDC-IDRI, whose malignancy up to four radiologists rated.

The context crop represents FSC and the tight crop ASC. Validation and test use clear cases only (three or four readers, median not 3);
training also uses the other nodules of the training patients, with the mean rating as a soft target. Labels are ratings, not pathology.
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
from training.fit.grid import FoldData, TrainingTask
from training.fit.member import TrainSettings
from training.networks import build
from training.networks.inference import crops_of_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Scores = npt.NDArray[np.float64]

ARRAYS: Final = "lidc_nodule_2crop.npz"
FOLDS: Final = 5
UNCLEAR: Final = 0.23  # distance of the target from 1/2: mean ratings between 2.5 and 3.5 are closer
SIDE: Final = 64  # pixels of both crops; the context crop keeps the scanner's pixels, so that it shows size as FSC does
FAMILIES: Final = (build.LITE, "resnet18", "densenet121", "efficientnet-b0")
IMAGENET_SIDE: Final = 224


@dataclass(frozen=True, slots=True)
class Nodules:
    """All nodules as a cohort, with the ratings.

    Attributes:
        cohort: one variant and one channel; ``malignant`` is a mean rating above 3 (in clear cases a median above 3), ``short_axis`` the
            diameter in mm.
        target: training target: the logistic function of twice the mean rating minus 3, so that 1 gives 0.02 and 2 gives 0.12.
        clear: at least three readers, whose median rating is not 3.
    """

    cohort: Cohort
    target: npt.NDArray[np.float32]
    clear: npt.NDArray[np.bool_]


def read_nodules(folder: Path) -> Nodules:
    """Read the arrays of the data set."""
    with np.load(folder / ARRAYS, allow_pickle=False) as stored:
        context, tight = stored["context"], stored["tight"]
        median, mean = stored["malignancy_median"], stored["malignancy_mean"]
        clear = (stored["n_raters"] >= 3) & (median != 3)
        low = (context.shape[1] - SIDE) // 2
        cohort = Cohort(
            fsc=np.ascontiguousarray(context[:, None, None, low : low + SIDE, low : low + SIDE]),
            asc=tight[:, None, None],
            malignant=np.where(clear, median > 3, mean > 3),
            patient=stored["patient"],
            short_axis=stored["diameter_mm"],
        )
    return Nodules(cohort, (1 / (1 + np.exp(-2 * (mean - 3)))).astype(np.float32), clear)


def arrays_digest(folder: Path) -> str:
    """Return the sha256 (hex) of the arrays of the data set; results of other arrays are not reused."""
    return hashlib.sha256((folder / ARRAYS).read_bytes()).hexdigest()


def patient_folds(nodules: Nodules, seed: int) -> list[npt.NDArray[np.intp]]:
    """Return the rows of each fold; no patient is in two folds."""
    cohort = nodules.cohort
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    stratum = np.where(nodules.clear, 1 + cohort.malignant, 0)
    return [test for _, test in splitter.split(stratum, stratum, cohort.patient)]


@dataclass(frozen=True, slots=True)
class LidcSplit:
    """Rows of one fold of the cross-validation: the next fold is for validation, the other three for training."""

    train: npt.NDArray[np.intp]
    validation: npt.NDArray[np.intp]
    test: npt.NDArray[np.intp]

    @classmethod
    def for_fold(cls, nodules: Nodules, fold: int, seed: int) -> LidcSplit:
        """Return the split whose test rows are fold ``fold``; validation and test rows are clear cases only."""
        every = patient_folds(nodules, seed)
        after = (fold + 1) % FOLDS
        rest = np.sort(np.concatenate([rows for n, rows in enumerate(every) if n not in {fold, after}]))
        # Nodules on which the readers are undecided are not used for training.
        rest = rest[np.abs(nodules.target[rest] - 0.5) >= UNCLEAR]
        return cls(rest, *(rows[nodules.clear[rows]] for rows in (every[after], every[fold])))


def fold_data(folder: Path, seed: int, fold: int) -> FoldData:
    """Return the cohorts of one fold.

    Raises:
        LeakageError: a patient or a crop is in two of them.
    """
    nodules = read_nodules(folder)
    split = LidcSplit.for_fold(nodules, fold, seed)
    train, validation, test = (
        cohorts.select_nodes(nodules.cohort, rows) for rows in (split.train, split.validation, split.test)
    )
    cohorts.check_leakage(train=train, validation=validation, test=test)
    return FoldData(train, validation, test, nodules.target[split.train])


def training_tasks(families: Sequence[str], seed: int, epochs: int) -> list[TrainingTask]:
    """Return every network to train, family by family."""
    return [
        TrainingTask(family, crop, fold, training_settings(family, seed, epochs))
        for family in families
        for crop in Crop
        for fold in range(FOLDS)
    ]


def training_settings(family: str, seed: int, epochs: int) -> TrainSettings:
    """Return the settings with which a family is trained in all folds; they were fixed on validation losses, before any test score was seen."""
    base = TrainSettings(
        batch=16,
        architecture=family,
        epochs=epochs,
        seed=seed,
        output_stride=32,
        patience=epochs,
        bf16=not family.startswith("eff"),
    )
    # A network that starts from ImageNet weights needs smaller steps.
    return replace(base, learning_rate=5e-4) if family == build.LITE else base


def frozen_features(nodules: Nodules, work: Path, report: Callable[[], None]) -> dict[Crop, npt.NDArray[np.float32]]:
    """Return ImageNet features (N, 1280) of the clear cases for each crop, from a network that is not trained here; NaN for other cases."""
    found = {}
    rows = np.flatnonzero(nodules.clear)
    for crop in Crop:
        path = work / f"features-{crop.value}.npz"
        if not path.exists():
            model = build.Lite0().eval()
            source = crops_of_kind(nodules.cohort, crop)[rows, 0]
            batches = [torch.from_numpy(source[n : n + 32]).float() / 255 for n in range(0, len(source), 32)]
            features = np.full((len(nodules.clear), 1280), np.nan, np.float32)
            features[rows] = torch.cat([model.features(batch, IMAGENET_SIDE / SIDE) for batch in batches]).numpy()
            arrays.save_arrays(path, {"features": features})
        with np.load(path, allow_pickle=False) as stored:
            found[crop] = stored["features"]
        report()
    return found


def regression_scores(nodules: Nodules, split: LidcSplit, features: npt.NDArray[np.float32]) -> tuple[Scores, Scores]:
    """Return the validation and test scores of a logistic regression that is fitted on the clear cases of the training patients."""
    rows = split.train[nodules.clear[split.train]]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(features[rows], nodules.cohort.malignant[rows])
    return model.decision_function(features[split.validation]), model.decision_function(features[split.test])
