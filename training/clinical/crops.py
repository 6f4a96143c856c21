"""Crops of a hospital's nodes, by the code of the node, kept per series so that DICOM is read once.

What is kept comes from the images and the places of the nodes alone; labels are taken from the table each time.
"""

from __future__ import annotations

import hashlib
import inspect
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alnnode.imaging import crop, orientation, window
from alnnode.records import Crop
from training.clinical import check, cropping
from training.clinical.cropping import IMAGED
from training.clinical.table import LABELS, TEST, NodeRow, Problem, TableError
from training.data import arrays
from training.data import cohort as cohorts
from training.data.cohort import Cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.imaging.crop import CropSettings
    from training.clinical.check import Rows
    from training.clinical.cropping import Task
    from training.clinical.folder import Folder

    Texts = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Nodes:
    """The labelled nodes of a table, in an order that does not depend on that of its rows.

    Attributes:
        cohort: as `training.data.cohort.Cohort` has them.
        imaged: (N, len(IMAGED)) text.
        regions: (N, 2, S, S): where on the FSC and the ASC crop the node, its margin and the fat around lie (`training.evaluate.cam.REGIONS`).
        held_out: (N,) whether the table keeps the node for the test.
        series: (N,) Series Instance UID.
    """

    cohort: Cohort
    imaged: Texts
    regions: npt.NDArray[np.uint8]
    held_out: npt.NDArray[np.bool_]
    series: Texts

    def __len__(self) -> int:
        return len(self.cohort)

    def groups(self) -> dict[str, Texts]:
        """Return the subgroups to look at."""
        return {name: self.imaged[:, n] for n, name in enumerate(IMAGED)} | {"short axis": self.cohort.size_classes}

    @property
    def digest(self) -> str:
        """Return the sha256 (hex) of what is learned from: crops, labels, sizes and which nodes share a patient; no name is in it."""
        cohort = self.cohort
        _, patient = np.unique(cohort.patient, return_inverse=True)
        arrays = (cohort.fsc, cohort.asc, cohort.malignant, cohort.short_axis, patient.astype("<i8"))
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def take(nodes: Nodes, rows: npt.NDArray[np.intp]) -> Nodes:
    """Return these nodes."""
    imaged, regions, held_out, series = nodes.imaged[rows], nodes.regions[rows], nodes.held_out[rows], nodes.series[rows]
    return Nodes(cohorts.take(nodes.cohort, rows), imaged, regions, held_out, series)


def save(nodes: Nodes, path: Path) -> None:
    """Keep the nodes, whole or not at all."""
    cohort = {field.name: getattr(nodes.cohort, field.name) for field in fields(Cohort)}
    arrays.save(path, cohort | {name: getattr(nodes, name) for name in ("imaged", "regions", "held_out", "series")})


def read(path: Path) -> Nodes:
    """Return what was kept."""
    with np.load(path, allow_pickle=False) as kept:
        cohort = Cohort(**{field.name: kept[field.name] for field in fields(Cohort)})
        return Nodes(cohort, kept["imaged"], kept["regions"], kept["held_out"], kept["series"])


def series_of(rows: Rows) -> dict[str, dict[int, NodeRow]]:
    """Return the labelled rows by series, in a fixed order."""
    labelled = check.labelled(rows)
    order = sorted(labelled, key=lambda n: (labelled[n].patient, labelled[n].series_uid, *_place(labelled[n])))
    found: dict[str, dict[int, NodeRow]] = {}
    for number in order:
        found.setdefault(labelled[number].series_uid, {})[number] = labelled[number]
    return found


def collect(
    rows: Rows, folder: Folder, settings: CropSettings, cache: Path, progress: Callable[[], None], processes: int = 2
) -> Nodes:
    """Return the labelled nodes; series that are in ``cache`` already are not read again.

    Raises:
        TableError: a series cannot be read, or a slice of it is no part of the volume; names the rows.
    """
    wanted = series_of(rows)
    if not wanted:
        raise TableError("no row has a label yet: nothing can be learned")
    cache.mkdir(parents=True, exist_ok=True)
    tasks: list[Task] = []
    for uid, mine in wanted.items():
        paths = folder.series[uid].paths
        tasks.append((paths, list(mine.values()), settings, cache / f"{_key(paths, list(mine.values()), settings)}.npz"))
    todo = [task for task in tasks if not task[-1].exists()]
    for _ in range(len(tasks) - len(todo)):
        progress()
    reasons: dict[Path, str] = {}
    for task, reason in zip(todo, _run(todo, processes), strict=True):
        if reason:
            reasons[task[-1]] = reason
        progress()
    check.refuse(
        [
            Problem(min(mine), "series_uid", f"the series cannot be used: {reasons[task[-1]]}", "take its rows out, or mend it")
            for task, mine in zip(tasks, wanted.values(), strict=True)
            if task[-1] in reasons
        ],
        "reading the series",
    )
    return _join(tasks)


def _place(row: NodeRow) -> tuple[str, int, float, float, float, float]:
    return row.sop_uid, row.frame or 0, row.left, row.top, row.right, row.bottom


def _key(paths: Sequence[Path], rows: Sequence[NodeRow], settings: CropSettings) -> str:
    """Return a name for the crops: other images, places, settings or code are another one."""
    code = [inspect.getsource(module) for module in (crop, orientation, window, cohorts, cropping)]
    images = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    places = [(*_place(row), row.below, row.above, row.contour, row.short_axis_mm, row.side, row.level) for row in rows]
    return hashlib.sha256(repr((code, images, places, settings)).encode()).hexdigest()[:32]


def _run(todo: Sequence[Task], processes: int) -> Iterator[str]:
    if not processes or len(todo) < 2:
        yield from map(cropping.keep, todo)
        return
    with ProcessPoolExecutor(min(processes, len(todo)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(cropping.keep, todo)


def _join(tasks: Sequence[Task]) -> Nodes:
    parts: list[Mapping[str, npt.NDArray[Any]]] = []
    for task in tasks:
        with np.load(task[-1], allow_pickle=False) as kept:
            parts.append({name: kept[name] for name in ("fsc", "asc", "short_axis", "regions", "imaged")})
    rows = [row for task in tasks for row in task[1]]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    cohort = Cohort(
        joined["fsc"],
        joined["asc"],
        np.array([LABELS[row.label] for row in rows], bool),
        np.array([row.patient for row in rows]),
        joined["short_axis"],
    )
    held_out, series = np.array([row.part == TEST for row in rows], bool), np.array([row.series_uid for row in rows])
    return Nodes(cohort, joined["imaged"], joined["regions"], held_out, series)


CROPS: Final = (Crop.FSC, Crop.ASC)  # the order of ``Nodes.regions``
