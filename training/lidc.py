"""The two-crop method on real CT: lung nodules of LIDC-IDRI with the suspicion of up to four radiologists.

The context crop stands for FSC and the tight one for ASC. Clear cases (three or four readers, median not 3) are judged; the others of the
training patients are trained on with the mean reading as a soft target. Labels are opinions of readers, not pathology.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from alnnode.records import Crop
from training import cohort as cohorts
from training import networks
from training.cohort import Cohort
from training.train import Trainer, TrainSettings, logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    Scores = npt.NDArray[np.float64]

ARRAYS: Final = "lidc_nodule_2crop.npz"
FOLDS: Final = 5
TORN: Final = 0.23  # of the target around 1/2: mean readings between 2.5 and 3.5
SIDE: Final = 64  # pixels of both crops; the context is kept at the scanner's own pixels, so that size is seen as under FSC
FAMILIES: Final = (networks.LITE, "resnet18", "densenet121", "efficientnet-b0")
FROZEN: Final = "frozen efficientnet-lite0 + logistic regression"


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
        split = cls(rest, *(rows[nodules.clear[rows]] for rows in (every[after], every[fold])))
        parts = {"train": split.train, "validation": split.validation, "test": split.test}
        cohorts.check_leakage(**{name: cohorts.take(nodules.cohort, rows) for name, rows in parts.items()})
        return split


@dataclass(frozen=True, slots=True)
class Task:
    """One network to train: a family, a crop, a fold."""

    family: str
    crop: Crop
    fold: int
    settings: TrainSettings

    def folder(self, work: Path) -> Path:
        """Return where its checkpoints and scores are kept."""
        return work / f"seed-{self.settings.seed}" / self.family / f"fold-{self.fold}"

    def scores(self, work: Path) -> Path:
        """Return the file of its logits on validation and test."""
        return self.folder(work) / f"{self.crop.value}-scores.npz"


def tasks(families: tuple[str, ...], seed: int, epochs: int) -> list[Task]:
    """Return every network, the fastest family first."""
    return [
        Task(family, crop, fold, settings_of(family, seed, epochs))
        for family in families
        for crop in Crop
        for fold in range(FOLDS)
    ]


def settings_of(family: str, seed: int, epochs: int) -> TrainSettings:
    """Return how a family is trained: set once, before any result was seen, and the same for all folds."""
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
    return replace(base, learning_rate=5e-4) if family == networks.LITE else base


def train(folder: Path, wanted: list[Task], work: Path, report: Callable[[], None], processes: int = 2) -> None:
    """Train what is not trained yet; a killed run goes on where it stopped."""
    todo = [task for task in wanted if not task.scores(work).exists()]
    for _ in range(len(wanted) - len(todo)):
        report()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_train, folder, task, work) for task in todo]):
            done.result()
            report()


def _train(folder: Path, task: Task, work: Path) -> None:
    nodules = read(folder)
    split = Split.of(nodules, task.fold, task.settings.seed)
    part = {name: cohorts.take(nodules.cohort, getattr(split, name)) for name in ("train", "validation", "test")}
    trainer = Trainer(
        task.crop, part["train"], part["validation"], task.settings, task.folder(work), nodules.target[split.train]
    )
    trainer.model.load_state_dict(trainer.fit(lambda: None))
    found = {name: logits(trainer.model, part[name], task.crop) for name in ("validation", "test")}
    _save(task.scores(work), found)


def frozen(nodules: Nodules, work: Path, seed: int, report: Callable[[], None]) -> Iterator[tuple[Crop, int, Scores, Scores]]:
    """Yield (crop, fold, validation logits, test logits) of a logistic regression on ImageNet features that are not trained."""
    for crop in Crop:
        path = work / f"features-{crop.value}.npz"
        if not path.exists():
            torch.manual_seed(seed)
            model = networks.Lite0().eval()
            source = (nodules.cohort.fsc if crop is Crop.FSC else nodules.cohort.asc)[:, 0]
            batches = [torch.from_numpy(source[n : n + 32]).float() / 255 for n in range(0, len(source), 32)]
            _save(path, {"features": torch.cat([model.features(batch, 224 / SIDE) for batch in batches]).numpy()})
        with np.load(path, allow_pickle=False) as kept:
            features = kept["features"]
        for fold in range(FOLDS):
            split = Split.of(nodules, fold, seed)
            rows = split.train[nodules.clear[split.train]]
            model_ = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
            model_.fit(features[rows], nodules.cohort.malignant[rows])
            yield (
                crop,
                fold,
                model_.decision_function(features[split.validation]),
                model_.decision_function(features[split.test]),
            )
        report()


def _save(path: Path, arrays: Mapping[str, npt.NDArray[np.floating[Any]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("wb") as sink:
        np.savez_compressed(sink, **arrays)  # type: ignore[arg-type]  # its keywords are the arrays
    partial.rename(path)
