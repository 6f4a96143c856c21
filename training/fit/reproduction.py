"""The frozen terms of the reproduction: read from reproduction.toml, which was committed before any network was trained on them.

Difficulty is what `alnnode.phantom` draws from the published distributions of features (docs/phantom.md). It is never tuned to a model or to
the figures of the paper; a phantom that draws differently from the one that was frozen stops the reproduction.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alnnode.errors import AlnnodeError
from alnnode.imaging.crop import CropSettings
from alnnode.phantom import PhantomSettings, Phase
from alnnode.records import Crop
from training.data import cohort as cohorts
from training.data import described
from training.fit import protocol
from training.fit.grid import Task
from training.fit.protocol import Rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.data.described import Described
    from training.fit.grid import Parts
    from training.fit.member import TrainSettings

TERMS: Final = Path(__file__).with_name("reproduction.toml")
TENTHS: Final = {"test": 2, "fold": 2}  # of the patients: 20 % test, four folds of 20 %


class ChangedTermsError(AlnnodeError):
    """The phantoms are no longer those that were frozen."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How much of it is done; the cohort's shape is in every profile's own name, so that a smaller one is not taken for the whole.

    Attributes:
        folds: of the four; each network is trained once for each.
        crowded: nodes in each axilla of a phantom at least: fewer phantoms must be drawn for as many nodes.
        slices: of a phantom; None leaves what was frozen.
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
    shifted: int = 0  # phantoms of the harder cohort


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes:
        detection: what ``evaluate-detector`` found with the exported bundle, for its model card; None before it was run.
    """

    profile: Profile
    seed: int
    shifted_seed: int
    phantoms: PhantomSettings
    harder: PhantomSettings
    work: Path
    device: str = "cpu"
    processes: int = 2
    crops: CropSettings = field(default_factory=CropSettings)
    detection: dict[str, Any] | None = None

    def source(self, shifted: bool = False) -> cohorts.Source:
        """Return what is drawn."""
        seed, settings = (self.shifted_seed, self.harder) if shifted else (self.seed, self.phantoms)
        return cohorts.Source(seed, settings, self.crops)


def read(profile: str, work: Path, device: str = "cpu", processes: int = 2, terms: Path = TERMS) -> Plan:
    """Return the plan of a profile.

    Raises:
        ChangedTermsError: the code that draws phantoms is not the one that was frozen.
    """
    told = tomllib.loads(terms.read_text(encoding="utf-8"))
    if told["phantom_code"] != cohorts.phantom_code():
        raise ChangedTermsError(
            "alnnode/phantom was changed after the terms of the reproduction were frozen; figures would not be comparable. "
            f"Freeze it anew in a commit of its own: phantom_code = {cohorts.phantom_code()!r}"
        )
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in told["profiles"][profile].items()
    }
    chosen = Profile(name=profile, **given)
    base = PhantomSettings(min_nodes_per_side=chosen.crowded, slices=chosen.slices or PhantomSettings().slices)
    harder = told["shifted"]
    return Plan(
        profile=chosen,
        seed=told["seed"],
        shifted_seed=harder["seed"],
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
        crops=CropSettings(pixels=chosen.pixels),
    )


def cohort(plan: Plan, progress: Callable[[], None]) -> Described:
    """Return the nodes of the cohort, of the shape that the profile says."""
    profile = plan.profile
    pool = described.collect(plan.source(), profile.patients, plan.work / "crops", progress, plan.processes)
    return described.choose(pool, profile.nodes, profile.malignant, plan.seed)


def split(nodes: Described, fold: int, seed: int) -> Rows:
    """Return the rows of a fold, by patient."""
    names = np.unique(nodes.cohort.patient)
    tenths = np.array_split(np.random.default_rng([seed, 77]).permutation(names), 10)
    test, start = TENTHS["test"], TENTHS["test"] + TENTHS["fold"] * fold
    groups = {"test": tenths[:test], "validation": tenths[start : start + TENTHS["fold"]]}
    held = {name: np.isin(nodes.cohort.patient, np.concatenate(parts)) for name, parts in groups.items()}
    train = ~(held["test"] | held["validation"])
    return Rows(np.flatnonzero(train), np.flatnonzero(held["validation"]), np.flatnonzero(held["test"]))


def parts(plan: Plan, fold: int) -> Parts:
    """Return the nodes of a fold from the disk.

    Raises:
        LeakageError: a patient or a picture is in two parts.
    """
    nodes = cohort(plan, lambda: None)
    return protocol.parts_of(nodes.cohort, split(nodes, fold, plan.seed))


def shuffled(plan: Plan, deal: int) -> Parts:
    """Return the parts of the first fold with the labels dealt out anew, differently for each ``deal``."""
    return protocol.shuffled(parts(plan, 0), plan.seed, deal)


def tasks(plan: Plan) -> list[Task]:
    """Return every network to train."""
    profile = plan.profile
    return [
        Task(family, crop, fold, settings(plan, family))
        for fold in range(profile.folds)
        for family in profile.families
        for crop in Crop
    ]


def settings(plan: Plan, family: str) -> TrainSettings:
    """Return how a family is trained."""
    profile = plan.profile
    return protocol.settings(family, profile.epochs, profile.batch, profile.output_stride, plan.seed, plan.device)
