"""The frozen terms of the reproduction, read from reproduction.toml, which was committed before any network was trained on them.

How hard the phantom nodes are follows from published distributions of features (docs/phantom.md). It is not tuned to a model or to the
results of the paper. When the phantom code differs from the frozen code, the reproduction stops.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alnnode.errors import AlnnodeError
from alnnode.imaging.crop import CropSettings
from alnnode.phantom import PhantomSettings, Phase, Surroundings
from alnnode.records import Crop
from training.data import cohort as cohorts
from training.data import node_features
from training.fit import protocol
from training.fit.grid import TrainingTask
from training.fit.pretraining import PretrainingTask
from training.fit.protocol import FoldRows

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.data.node_features import FeatureCohort
    from training.fit.grid import FoldData
    from training.fit.member import TrainSettings

TERMS: Final = Path(__file__).with_name("reproduction.toml")
TENTHS: Final = {"test": 2, "fold": 2}  # of the patients: 20 % for the test and 20 % for each of four folds


class ChangedTermsError(AlnnodeError):
    """The phantom code differs from the frozen code."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The size of one reproduction.

    Attributes:
        folds: number of folds, of the four, on which each network is trained.
        crowded: least number of nodes in each axilla; with more nodes in each, fewer phantoms must be drawn.
        slices: number of slices of a phantom, from and to; None: as frozen.
        fresh: number of phantoms on which the bundle's operating point is measured.
        shifted: number of phantoms of the harder cohort.
        seeds: number of seeds with which the networks of the first fold are trained; the first makes the bundle.
        pretraining: number of auxiliary phantoms on which the networks are pretrained (`training.fit.pretraining`); 0: none.
        pretraining_epochs: epochs of the pretraining.
    """

    name: str
    patients: int
    nodes: int
    malignant: int
    families: tuple[str, ...]
    folds: int
    epochs: int
    pixels: int
    output_stride: int
    batch: int
    crowded: int = 0
    slices: tuple[int, int] | None = None
    fresh: int = 0
    shifted: int = 0
    seeds: int = 1
    pretraining: int = 0
    pretraining_epochs: int = 0


@dataclass(frozen=True, slots=True)
class ReproductionPlan:
    """One run.

    Attributes:
        detection: metrics that ``evaluate-detector`` wrote for the exported bundle, for its model card; None if it has not run yet.
    """

    profile: Profile
    seed: int
    fresh_seed: int
    shifted_seed: int
    pretraining_seed: int
    phantoms: PhantomSettings
    harder: PhantomSettings
    work: Path
    device: str = "cpu"
    processes: int = 2
    crops: CropSettings = field(default_factory=CropSettings)
    detection: dict[str, Any] | None = None

    @property
    def source(self) -> cohorts.PhantomSource:
        """The source of the cohort's phantoms."""
        return cohorts.PhantomSource(self.seed, self.phantoms, self.crops)

    @property
    def fresh_source(self) -> cohorts.PhantomSource:
        """The source of the phantoms on which the bundle's operating point is measured."""
        return cohorts.PhantomSource(self.fresh_seed, self.phantoms, self.crops)

    @property
    def shifted_source(self) -> cohorts.PhantomSource:
        """The source of the harder phantoms."""
        return cohorts.PhantomSource(self.shifted_seed, self.harder, self.crops)

    @property
    def pretraining_source(self) -> cohorts.PhantomSource:
        """The source of the auxiliary phantoms on which the networks are pretrained."""
        return cohorts.PhantomSource(self.pretraining_seed, self.phantoms, self.crops)

    @property
    def folder(self) -> Path:
        """The folder of the networks of this profile."""
        return self.work / self.profile.name


def read_plan(profile: str, work: Path, device: str = "cpu", processes: int = 2, terms: Path = TERMS) -> ReproductionPlan:
    """Return the plan of a profile.

    Raises:
        ChangedTermsError: the code that draws phantoms differs from the frozen code.
    """
    frozen = tomllib.loads(terms.read_text(encoding="utf-8"))
    if frozen["phantom_code"] != cohorts.phantom_code():
        raise ChangedTermsError(
            f"alnnode/phantom changed after {TERMS.name} was frozen, so results are not comparable with earlier ones. "
            f"To freeze the new code, write this into {TERMS.name} in a separate commit: phantom_code = {cohorts.phantom_code()!r}"
        )
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in frozen["profiles"][profile].items()
    }
    chosen = Profile(name=profile, **given)
    base = PhantomSettings(
        min_nodes_per_side=chosen.crowded,
        slices=chosen.slices or PhantomSettings().slices,
        surroundings=Surroundings(frozen["surroundings"]),
    )
    harder = frozen["shifted"]
    return ReproductionPlan(
        profile=chosen,
        seed=frozen["seed"],
        fresh_seed=frozen["fresh"]["seed"],
        shifted_seed=harder["seed"],
        pretraining_seed=frozen["pretraining"]["seed"],
        phantoms=base,
        harder=replace(
            base,
            thickness_mm=(harder["thickness_mm"][0], harder["thickness_mm"][1]),
            noise_hu=harder["noise_hu"],
            phase=Phase(harder["phase"]),
        ),
        work=work,
        device=device,
        processes=processes,
        crops=CropSettings(pixels=chosen.pixels, **frozen["crops"]),
    )


def reproduction_cohort(plan: ReproductionPlan, progress: Callable[[], None]) -> FeatureCohort:
    """Return the nodes of the cohort, in the numbers that the profile gives."""
    profile = plan.profile
    pool = node_features.collect_features(plan.source, profile.patients, plan.work / "crops", progress, plan.processes)
    return node_features.choose_nodes(pool, profile.nodes, profile.malignant, plan.seed)


def split_by_patient(nodes: FeatureCohort, fold: int, seed: int) -> FoldRows:
    """Return the rows of a fold; no patient is in two parts."""
    names = np.unique(nodes.cohort.patient)
    tenths = np.array_split(np.random.default_rng([seed, 77]).permutation(names), 10)
    test, start = TENTHS["test"], TENTHS["test"] + TENTHS["fold"] * fold
    groups = {"test": tenths[:test], "validation": tenths[start : start + TENTHS["fold"]]}
    held = {name: np.isin(nodes.cohort.patient, np.concatenate(parts)) for name, parts in groups.items()}
    train = ~(held["test"] | held["validation"])
    return FoldRows(np.flatnonzero(train), np.flatnonzero(held["validation"]), np.flatnonzero(held["test"]))


def fold_data(plan: ReproductionPlan, fold: int) -> FoldData:
    """Return the cohorts of a fold from the cache on disk.

    Raises:
        LeakageError: a patient or a crop is in two parts.
    """
    nodes = reproduction_cohort(plan, lambda: None)
    return protocol.fold_data(nodes.cohort, split_by_patient(nodes, fold, plan.seed))


def fold_data_permuted(plan: ReproductionPlan, permutation: int) -> FoldData:
    """Return the cohorts of the first fold of the cohort whose labels are permuted, in another order for each ``permutation``."""
    nodes = reproduction_cohort(plan, lambda: None)
    permuted = protocol.permute_labels(nodes.cohort, plan.seed, permutation)
    return protocol.fold_data(permuted, split_by_patient(nodes, 0, plan.seed))


def training_tasks(plan: ReproductionPlan) -> list[TrainingTask]:
    """Return every network to train with the first seed."""
    profile = plan.profile
    return [
        TrainingTask(family, crop, fold, training_settings(plan, family, crop))
        for fold in range(profile.folds)
        for family in profile.families
        for crop in Crop
    ]


def repeated_tasks(plan: ReproductionPlan) -> list[TrainingTask]:
    """Return the networks of the first fold with the further seeds, which show how much a result depends on the seed."""
    return [
        TrainingTask(family, crop, 0, replace(training_settings(plan, family, crop), seed=plan.seed + number))
        for number in range(1, plan.profile.seeds)
        for family in plan.profile.families
        for crop in Crop
    ]


def pretraining_tasks(plan: ReproductionPlan) -> list[PretrainingTask]:
    """Return every network to pretrain: one of each family and crop, from which the networks of all folds and seeds start."""
    profile = plan.profile
    if not profile.pretraining:
        return []
    options = replace(_options(plan), epochs=profile.pretraining_epochs, seed=plan.pretraining_seed)
    return [
        PretrainingTask(
            family,
            crop,
            plan.pretraining_source,
            profile.pretraining,
            options.for_family(family),
        )
        for family in profile.families
        for crop in Crop
    ]


def training_settings(plan: ReproductionPlan, family: str, crop: Crop, *, pretrained: bool = True) -> TrainSettings:
    """Return the settings with which a family is trained under a crop: from the pretrained weights, where the profile has them."""
    tasks = [task for task in pretraining_tasks(plan) if (task.family, task.crop) == (family, crop)]
    return _options(plan).for_family(family, tasks[0].weights(plan.folder) if tasks and pretrained else None)


def _options(plan: ReproductionPlan) -> protocol.TrainingOptions:
    profile = plan.profile
    return protocol.TrainingOptions(
        profile.epochs, profile.batch, profile.output_stride, plan.seed, plan.device, numbers=int(plan.crops.blood_pool)
    )
