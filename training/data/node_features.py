"""Cohorts with features of each node: measured in the image, parameters of the phantom generator, and acquisition.

The first two are the input of baselines, the third defines subgroups. The features are cached on disk per phantom, like the crops of
`training.data.cohort`.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from alnnode import phantom
from alnnode.errors import AlnnodeError
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.measure import node_from_mask
from alnnode.phantom import Phase
from training.data import cohort as cohorts
from training.data.box_features import BOX_FEATURES, box_features
from training.data.cohort import Cohort, PhantomSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import numpy.typing as npt

RING_MM: Final = 4.0  # width of the ring of fat around a node, as far as stranding reaches
MEASURED_FEATURES: Final = ("short axis, mm", "long / short", "mean HU", "maximum HU", "SD of HU", "volume, ml", "ring HU")
GENERATOR_PARAMETERS: Final = (
    "short axis, mm", "long / short", "cortex, mm", "hilum", "eccentricity", "lobulation", "spiculation", "stranding", "cortex HU",
    "arterial", "venous",
)  # fmt: skip
ACQUISITION: Final = ("side", "level", "phase", "thickness", "noise")


_COLUMNS: Final = ("measured", "boxed", "drawn", "acquisition")


class ShortageError(AlnnodeError):
    """The drawn phantoms have too few nodes of a class."""


@dataclass(frozen=True, slots=True)
class FeatureCohort:
    """A cohort with features of its nodes.

    Attributes:
        measured: (N, `MEASURED_FEATURES`) from the image and the true outline.
        boxed: (N, `BOX_FEATURES`) from one slice and the true box, without the outline.
        drawn: (N, `GENERATOR_PARAMETERS`) as the phantom generator drew them.
        acquisition: (N, `ACQUISITION`) text.
    """

    cohort: Cohort
    measured: npt.NDArray[np.float32]
    boxed: npt.NDArray[np.float32]
    drawn: npt.NDArray[np.float32]
    acquisition: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.cohort)

    def groups(self) -> dict[str, npt.NDArray[np.str_]]:
        """Return the subgroups: the attributes of the acquisition, and the size class."""
        return {name: self.acquisition[:, n] for n, name in enumerate(ACQUISITION)} | {"short axis": self.cohort.size_classes}


def select_nodes(described: FeatureCohort, rows: npt.NDArray[np.intp]) -> FeatureCohort:
    """Return the nodes in these rows."""
    parts = (getattr(described, name)[rows] for name in _COLUMNS)
    return FeatureCohort(cohorts.select_nodes(described.cohort, rows), *parts)


def features_of_patient(source: PhantomSource, index: int) -> FeatureCohort:
    """Return the nodes of one phantom with their features."""
    made = phantom.make_patient(source.seed, index, source.phantoms)
    patient = made.patient
    thickness = "under 2 mm" if patient.thickness < 2 else "2 mm and more"
    noise = "under 15 HU" if patient.noise < 15 else "15 HU and more"
    volume = cohorts.as_volume(made)
    blood_hu = ChestAnatomy(volume).blood_hu if made.nodes else None
    boxed = [box_features(volume, node.box, node.slice_index, blood_hu) for node in made.nodes]
    acquisition = [[node.side.value, node.level.value, patient.phase.value, thickness, noise] for node in made.nodes]
    return FeatureCohort(
        cohorts.cohort_of_phantom(source, made),
        np.array([_measure(made, node) for node in made.nodes], np.float32).reshape(-1, len(MEASURED_FEATURES)),
        np.array(boxed, np.float32).reshape(-1, len(BOX_FEATURES)),
        np.array([_parameters(node, patient.phase) for node in made.nodes], np.float32).reshape(-1, len(GENERATOR_PARAMETERS)),
        np.array(acquisition, "U24").reshape(-1, len(ACQUISITION)),
    )


def _measure(made: phantom.Phantom, node: phantom.TruthNode) -> list[float]:
    reach = [int(np.ceil(RING_MM / spacing)) + 1 for spacing in made.spacing]
    low = [max(a - r, 0) for a, r in zip(node.box.low, reach, strict=True)]
    high = [min(b + r, n) for b, r, n in zip(node.box.high, reach, made.hu.shape, strict=True)]
    where = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    mask = made.labels[where] == node.number
    found = node_from_mask(cohorts.as_volume(made), mask, (low[0], low[1], low[2]), node.side, node.number)
    distance = ndimage.distance_transform_edt(~mask, sampling=made.spacing)
    ring = (distance > 1) & (distance <= RING_MM) & (made.labels[where] == 0)
    hu = made.hu[where]
    return [
        found.short_axis.length_mm,
        found.long_axis.length_mm / max(found.short_axis.length_mm, 1.0),
        found.attenuation.mean,
        found.attenuation.maximum,
        found.attenuation.deviation,
        found.volume_mm3 / 1000,
        float(hu[ring].mean()) if ring.any() else -100.0,
    ]


def _parameters(node: phantom.TruthNode, phase: Phase) -> list[float]:
    return [
        node.short_axis_mm,
        node.long_axis_mm / max(node.short_axis_mm, 1.0),
        node.cortex_mm,
        node.hilum,
        node.eccentricity,
        node.lobulation,
        node.spiculated,
        node.stranding,
        node.cortex_hu,
        phase is Phase.ARTERIAL,
        phase is Phase.VENOUS,
    ]


def collect_features(
    source: PhantomSource, patients: int, cache: Path, progress: Callable[[], None], processes: int = 2
) -> FeatureCohort:
    """Return the nodes of ``patients`` phantoms; ``cache`` stores the result of each phantom, and those already there are read."""
    folder = source.folder(cache / "described")
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index:05d}.npz" for index in range(patients)]
    todo = [(source, index, path) for index, path in enumerate(files) if not path.exists()]
    for _ in range(patients - len(todo)):
        progress()
    if todo and not processes:
        for task in todo:
            _store(task)
            progress()
    elif todo:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(_store, todo):
                progress()
    return join_feature_cohorts(_read(path) for path in files)


def join_feature_cohorts(parts: Iterable[FeatureCohort]) -> FeatureCohort:
    """Return the concatenation of several cohorts."""
    every = list(parts)
    columns = [np.concatenate([getattr(part, name) for part in every]) for name in _COLUMNS]
    return FeatureCohort(cohorts.join_cohorts(part.cohort for part in every), *columns)


def choose_nodes(pool: FeatureCohort, nodes: int, malignant: int, seed: int) -> FeatureCohort:
    """Return ``nodes`` random nodes of which ``malignant`` are malignant, with at least one node of every patient in the pool.

    Raises:
        ShortageError: the pool has too few nodes of a class.
    """
    rng = np.random.default_rng([seed, 31])
    order = rng.permutation(len(pool))
    _, first = np.unique(pool.cohort.patient[order], return_index=True)
    chosen = np.zeros(len(pool), bool)
    chosen[order[first]] = True
    for label, wanted in ((True, malignant), (False, nodes - malignant)):
        of_class = pool.cohort.malignant == label
        missing = wanted - int((chosen & of_class).sum())
        spare = [row for row in order if of_class[row] and not chosen[row]]
        if not 0 <= missing <= len(spare):
            raise ShortageError(
                f"{wanted} nodes of class {label} are not available in these phantoms; draw more phantoms, or more nodes in each"
            )
        chosen[spare[:missing]] = True
    return select_nodes(pool, np.flatnonzero(chosen))


def _store(task: tuple[PhantomSource, int, Path]) -> None:
    source, index, path = task
    part = features_of_patient(source, index)
    arrays = {field.name: getattr(part.cohort, field.name) for field in fields(Cohort)}
    partial = path.with_suffix(".part")
    with partial.open("wb") as sink:
        np.savez_compressed(sink, **arrays, **{name: getattr(part, name) for name in _COLUMNS})
    partial.rename(path)


def _read(path: Path) -> FeatureCohort:
    with np.load(path, allow_pickle=False) as arrays:
        cohort = Cohort(**{field.name: arrays[field.name] for field in fields(Cohort)})
        return FeatureCohort(cohort, *(arrays[name] for name in _COLUMNS))
