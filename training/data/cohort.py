"""Cohorts: the crops of many nodes with labels; those of phantoms are cached on disk per patient, so that a run can resume."""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset

from alnnode import phantom
from alnnode.errors import AlnnodeError
from alnnode.imaging.crop import CropSettings, crop_box
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.records import Box, SliceRef, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from alnnode.phantom import PhantomSettings

    Bytes = npt.NDArray[np.uint8]

VARIANTS = 4  # the true box, and three jittered boxes as a detector might give them


class LeakageError(AlnnodeError):
    """A patient is in more than one part (training, validation, test) of the data."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Arrays over N nodes.

    Attributes:
        fsc, asc: (N, VARIANTS, channels, S, S) bytes; divided by 255 they are exactly the crops that the node computes.
        malignant: (N,) bool.
        patient: (N,) text; one name for each patient, unique over all cohorts.
        short_axis: (N,) mm.
    """

    fsc: Bytes
    asc: Bytes
    malignant: npt.NDArray[np.bool_]
    patient: npt.NDArray[np.str_]
    short_axis: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.malignant)

    @property
    def fingerprints(self) -> set[bytes]:
        """Digests of the pixels of all crops; a crop of uniform grey has none, because different patients can have the same."""
        kinds = (self.fsc, self.asc)
        return {hashlib.sha256(row[0]).digest() for rows in kinds for row in rows if row[0].min() != row[0].max()}

    @property
    def size_classes(self) -> npt.NDArray[np.str_]:
        """Size class (N,) by the short axis, for subgroups."""
        return np.where(self.short_axis < 5, "under 5 mm", np.where(self.short_axis < 10, "5 to 10 mm", "10 mm and more"))

    @property
    def patients(self) -> set[str]:
        """The names of the patients."""
        return set(self.patient.tolist())


def as_volume(made: phantom.Phantom) -> Volume:
    """Return a phantom as the volume that the node would read from its files."""
    refs = tuple(SliceRef("", "", None, (0.0, 0.0, 0.0)) for _ in range(len(made.hu)))
    return Volume(made.hu, made.affine, refs, Dataset(), made.spacing)


def jitter_box(box: Box, slice_index: int, rng: np.random.Generator) -> tuple[Box, int]:
    """Return the box with borders moved by up to 15 %, and the slice or one of its neighbours, as a detector might give them."""

    def move(low: int, high: int) -> tuple[int, int]:
        reach = max(0.15 * (high - low), 1.0)
        a, b = low + rng.uniform(-reach, reach), high + rng.uniform(-reach, reach)
        return round(a), max(round(b), round(a) + 2)

    j0, j1 = move(box.j0, box.j1)
    i0, i1 = move(box.i0, box.i1)
    k = int(np.clip(slice_index + rng.integers(-1, 2), box.k0, box.k1 - 1))
    return Box(box.k0, j0, i0, box.k1, j1, i1), k


@dataclass(frozen=True, slots=True)
class PhantomSource:
    """The source of crops: a seed, the settings of the phantoms drawn from it, and how nodes are cropped."""

    seed: int
    phantoms: PhantomSettings
    crops: CropSettings

    def folder(self, cache: Path) -> Path:
        """Return the cache folder of its crops; other settings and other phantom code have another folder."""
        description = f"{self.phantoms!r} {self.crops!r} {phantom_code()}"
        return cache / f"seed-{self.seed}-{hashlib.sha256(description.encode()).hexdigest()[:12]}"


def phantom_code() -> str:
    """Return the sha256 (hex) of the code that draws phantoms; cached crops of other code are not used."""
    code = [(path.name, path.read_bytes()) for path in Path(phantom.__file__).parent.glob("*.py")]
    return hashlib.sha256(repr(sorted(code)).encode()).hexdigest()


def cohort_of_patient(source: PhantomSource, index: int) -> Cohort:
    """Return the nodes of one phantom, which is drawn here."""
    return cohort_of_phantom(source, phantom.make_patient(source.seed, index, source.phantoms))


def cohort_of_phantom(source: PhantomSource, made: phantom.Phantom) -> Cohort:
    """Return the nodes of a phantom that was already drawn from the source."""
    index = made.index
    nodes = [(node.box, node.slice_index) for node in made.nodes]
    fsc, asc = crop_nodes(as_volume(made), nodes, source.crops, np.random.default_rng([source.seed, index, 1]))
    return Cohort(
        fsc=fsc,
        asc=asc,
        malignant=np.array([node.malignant for node in made.nodes], bool),
        patient=np.array([f"{source.seed}:{index}"] * len(made.nodes), "U24"),
        short_axis=np.array([node.short_axis_mm for node in made.nodes], np.float32),
    )


def crop_nodes(
    volume: Volume, nodes: Sequence[tuple[Box, int]], crops: CropSettings, rng: np.random.Generator
) -> tuple[Bytes, Bytes]:
    """Return the FSC and ASC crops of boxes on their slices as `crop_boxes` does, with the attenuation of the blood in the volume."""
    blood_hu = ChestAnatomy(volume).blood_hu if crops.blood_pool and nodes else None
    return crop_boxes(volume, nodes, crops, blood_hu, rng)


def crop_boxes(
    volume: Volume, nodes: Sequence[tuple[Box, int]], crops: CropSettings, blood_hu: float | None, rng: np.random.Generator
) -> tuple[Bytes, Bytes]:
    """Return the FSC and ASC crops (N, VARIANTS, channels, S, S) of boxes on their slices, cropped by the code of the node.

    The last variant of each node has no attenuation of the blood, so that networks learn series in which it is unknown.
    """
    known = [blood_hu] * (VARIANTS - 1) + [None]
    pairs = [
        [crop_box(volume, *place, crops, blood) for place, blood in zip(_places(box, k, rng), known, strict=True)]
        for box, k in nodes
    ]
    shape = (0, VARIANTS, crops.channels, crops.pixels, crops.pixels)

    def packed(kind: str) -> Bytes:
        stacked = [[np.rint(getattr(pair, kind) * 255) for pair in variants] for variants in pairs]
        return np.array(stacked, np.float32).astype(np.uint8) if stacked else np.zeros(shape, np.uint8)

    return packed("fsc"), packed("asc")


def _places(box: Box, k: int, rng: np.random.Generator) -> list[tuple[Box, int]]:
    return [(box, k), *(jitter_box(box, k, rng) for _ in range(VARIANTS - 1))]


def collect_cohort(
    source: PhantomSource, patients: int, cache: Path, progress: Callable[[], None], processes: int = 2
) -> Cohort:
    """Return the cohort of ``patients`` phantoms; ``cache`` stores the crops of each phantom, and those already there are read."""
    folder = source.folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index:05d}.npz" for index in range(patients)]
    todo = [(source, index, path) for index, path in enumerate(files) if not path.exists()]
    for _ in range(patients - len(todo)):
        progress()
    if todo:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(_store, todo):
                progress()
    return join_cohorts(_read(path) for path in files)


def join_cohorts(parts: Iterable[Cohort]) -> Cohort:
    """Return the concatenation of several cohorts."""
    every = list(parts)
    return Cohort(**{field.name: np.concatenate([getattr(part, field.name) for part in every]) for field in fields(Cohort)})


def select_nodes(cohort: Cohort, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Cohort:
    """Return the nodes of a cohort in these rows."""
    return Cohort(**{field.name: getattr(cohort, field.name)[rows] for field in fields(Cohort)})


def check_leakage(**parts: Cohort) -> None:
    """Check that no patient is in two parts: not by name, and not by identical pixels of a crop under another name.

    Raises:
        LeakageError: two parts share patients or crops; the message names both parts and the number.
    """
    contents = {name: (part.patients, part.fingerprints) for name, part in parts.items()}
    for (one, (patients, crops)), (other, (others, other_crops)) in combinations(contents.items(), 2):
        if shared := patients & others:
            raise LeakageError(f"{len(shared)} patient(s) are in both {one} and {other}; split by patient")
        if copied := crops & other_crops:
            raise LeakageError(
                f"{len(copied)} crop(s) are in both {one} and {other} under different patient names; check whether one patient has two names"
            )


def _store(task: tuple[PhantomSource, int, Path]) -> None:
    source, index, path = task
    part = cohort_of_patient(source, index)
    partial = path.with_suffix(".part")
    with partial.open("wb") as sink:
        np.savez_compressed(sink, **{field.name: getattr(part, field.name) for field in fields(Cohort)})
    partial.rename(path)


def _read(path: Path) -> Cohort:
    with np.load(path, allow_pickle=False) as arrays:
        return Cohort(**{field.name: arrays[field.name] for field in fields(Cohort)})
