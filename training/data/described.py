"""Cohorts whose nodes are described, too: what a reader could measure, what the generator drew, and where the node was imaged.

Baselines need the first two, subgroups the third. Kept per phantom on disk, as `training.data.cohort` keeps crops.
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
from alnnode.locate.measure import node_from_mask
from alnnode.phantom import Phase
from training.data import cohort as cohorts
from training.data.cohort import Cohort, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import numpy.typing as npt

RING_MM: Final = 4.0  # of fat around a node, as far as stranding reaches
MEASURED: Final = ("short axis, mm", "long / short", "mean HU", "maximum HU", "SD of HU", "volume, ml", "ring HU")
DRAWN: Final = (
    "short axis, mm", "long / short", "cortex, mm", "hilum", "eccentricity", "lobulation", "spiculation", "stranding", "cortex HU",
    "arterial", "venous",
)  # fmt: skip
IMAGED: Final = ("side", "level", "phase", "thickness", "noise")


class ShortageError(AlnnodeError):
    """The phantoms drawn do not hold the nodes that are asked for."""


@dataclass(frozen=True, slots=True)
class Described:
    """A cohort with (N, …) columns: `MEASURED` from the image and the true outline, `DRAWN` by the generator, `IMAGED` as text."""

    cohort: Cohort
    measured: npt.NDArray[np.float32]
    drawn: npt.NDArray[np.float32]
    imaged: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.cohort)

    def groups(self) -> dict[str, npt.NDArray[np.str_]]:
        """Return the subgroups to look at: each attribute of the image, and the size."""
        return {name: self.imaged[:, n] for n, name in enumerate(IMAGED)} | {"short axis": self.cohort.size_classes}


def take(described: Described, rows: npt.NDArray[np.intp]) -> Described:
    """Return these nodes."""
    parts = (described.measured[rows], described.drawn[rows], described.imaged[rows])
    return Described(cohorts.take(described.cohort, rows), *parts)


def of_patient(source: Source, index: int) -> Described:
    """Return the nodes of one phantom."""
    made = phantom.make_patient(source.seed, index, source.phantoms)
    habit = made.patient
    # The classes of a subgroup table, in words.
    thickness = "under 2 mm" if habit.thickness < 2 else "2 mm and more"
    noise = "under 15 HU" if habit.noise < 15 else "15 HU and more"
    imaged = [[node.side.value, node.level.value, habit.phase.value, thickness, noise] for node in made.nodes]
    return Described(
        cohorts.of_phantom(source, made),
        np.array([_measure(made, node) for node in made.nodes], np.float32).reshape(-1, len(MEASURED)),
        np.array([_parameters(node, habit.phase) for node in made.nodes], np.float32).reshape(-1, len(DRAWN)),
        np.array(imaged, "U24").reshape(-1, len(IMAGED)),
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


def collect(source: Source, patients: int, cache: Path, progress: Callable[[], None], processes: int = 2) -> Described:
    """Return the described nodes of ``patients`` phantoms; those already in ``cache`` are read, the others made and kept there."""
    folder = source.folder(cache / "described")
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index:05d}.npz" for index in range(patients)]
    todo = [(source, index, path) for index, path in enumerate(files) if not path.exists()]
    for _ in range(patients - len(todo)):
        progress()
    if todo and not processes:
        for task in todo:
            _keep(task)
            progress()
    elif todo:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(_keep, todo):
                progress()
    return join(_read(path) for path in files)


def join(parts: Iterable[Described]) -> Described:
    """Return one of several."""
    every = list(parts)
    columns = [np.concatenate([getattr(part, name) for part in every]) for name in ("measured", "drawn", "imaged")]
    return Described(cohorts.join(part.cohort for part in every), *columns)


def choose(pool: Described, nodes: int, malignant: int, seed: int) -> Described:
    """Return so many nodes of which so many are malignant, with at least one of every patient that has any.

    Raises:
        ShortageError: there are not enough nodes of a class; more phantoms are needed.
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
            raise ShortageError(f"{wanted} nodes of class {label} cannot be had of these phantoms; draw more or crowd them")
        chosen[spare[:missing]] = True
    return take(pool, np.flatnonzero(chosen))


def _keep(task: tuple[Source, int, Path]) -> None:
    source, index, path = task
    part = of_patient(source, index)
    arrays = {field.name: getattr(part.cohort, field.name) for field in fields(Cohort)}
    partial = path.with_suffix(".part")
    with partial.open("wb") as sink:
        np.savez_compressed(sink, **arrays, measured=part.measured, drawn=part.drawn, imaged=part.imaged)
    partial.rename(path)


def _read(path: Path) -> Described:
    with np.load(path, allow_pickle=False) as arrays:
        cohort = Cohort(**{field.name: arrays[field.name] for field in fields(Cohort)})
        return Described(cohort, arrays["measured"], arrays["drawn"], arrays["imaged"])
