"""Crops of a hospital's nodes, made with the code of the node and cached per series, so that DICOM files are read once.

The cache depends only on the images and the positions of the nodes; labels are read from the table each time.
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
from alnnode.locate import blood_pool, chest_anatomy
from alnnode.records import Crop
from training.clinical import series_crops, table_check
from training.clinical.node_table import LABELS, TEST, NodeRow, Problem, TableError
from training.clinical.series_crops import ACQUISITION
from training.data import arrays
from training.data import cohort as cohorts
from training.data.cohort import Cohort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.imaging.crop import CropSettings
    from training.clinical.dicom_folder import DicomFolder
    from training.clinical.series_crops import Task
    from training.clinical.table_check import Rows

    Texts = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class NodeCrops:
    """The labelled nodes of a table, in an order that does not depend on the order of its rows.

    Attributes:
        cohort: crops, labels, patients and short axes.
        acquisition: (N, `ACQUISITION`) text.
        regions: (N, 2, S, S) index in `training.data.regions.REGIONS` of each pixel of the FSC and the ASC crop.
        held_out: (N,) whether the table reserves the node for the test.
        series: (N,) Series Instance UID.
    """

    cohort: Cohort
    acquisition: Texts
    regions: npt.NDArray[np.uint8]
    held_out: npt.NDArray[np.bool_]
    series: Texts

    def __len__(self) -> int:
        return len(self.cohort)

    def groups(self) -> dict[str, Texts]:
        """Return the subgroups: the attributes of the acquisition, and the size class."""
        return {name: self.acquisition[:, n] for n, name in enumerate(ACQUISITION)} | {"short axis": self.cohort.size_classes}

    @property
    def digest(self) -> str:
        """The sha256 (hex) of crops, labels, short axes and the grouping by patient; it does not depend on names."""
        cohort = self.cohort
        _, patient = np.unique(cohort.patient, return_inverse=True)
        arrays = (cohort.fsc, cohort.asc, cohort.malignant, cohort.short_axis, patient.astype("<i8"))
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def select_nodes(nodes: NodeCrops, rows: npt.NDArray[np.intp]) -> NodeCrops:
    """Return the nodes in these rows."""
    acquisition, regions, held_out, series = (
        nodes.acquisition[rows],
        nodes.regions[rows],
        nodes.held_out[rows],
        nodes.series[rows],
    )
    return NodeCrops(cohorts.select_nodes(nodes.cohort, rows), acquisition, regions, held_out, series)


def save_nodes(nodes: NodeCrops, path: Path) -> None:
    """Write the nodes to a file; an interrupted write leaves no file under this name."""
    cohort = {field.name: getattr(nodes.cohort, field.name) for field in fields(Cohort)}
    others = {name: getattr(nodes, name) for name in ("acquisition", "regions", "held_out", "series")}
    arrays.save_arrays(path, cohort | others)


def load_nodes(path: Path) -> NodeCrops:
    """Return the nodes that `save_nodes` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        cohort = Cohort(**{field.name: stored[field.name] for field in fields(Cohort)})
        return NodeCrops(cohort, stored["acquisition"], stored["regions"], stored["held_out"], stored["series"])


def series_of(rows: Rows) -> dict[str, dict[int, NodeRow]]:
    """Return the labelled rows by Series Instance UID, in a fixed order."""
    labelled = table_check.labelled_rows(rows)
    order = sorted(labelled, key=lambda n: (labelled[n].patient, labelled[n].series_uid, *_place(labelled[n])))
    found: dict[str, dict[int, NodeRow]] = {}
    for number in order:
        found.setdefault(labelled[number].series_uid, {})[number] = labelled[number]
    return found


def numbers_of(rows: Rows) -> list[int]:
    """Return the number of the row of each node, in the order in which `collect_nodes` returns the nodes."""
    return [number for mine in series_of(rows).values() for number in mine]


@dataclass(frozen=True, slots=True)
class CropOptions:
    """How nodes are cropped, and where the crops are cached.

    Attributes:
        processes: number of series that are read in parallel; 0: in this process.
    """

    settings: CropSettings
    cache: Path
    processes: int = 2


def collect_nodes(rows: Rows, folder: DicomFolder, options: CropOptions, progress: Callable[[], None]) -> NodeCrops:
    """Return the crops of the labelled nodes; series whose crops are in the cache are not read.

    Args:
        rows: by number.
        folder: the DICOM files.
        options: how nodes are cropped.
        progress: called after each series.

    Raises:
        TableError: no row has a label, a series cannot be read, or the slice of a node is not part of the volume.
    """
    settings, cache = options.settings, options.cache
    wanted = series_of(rows)
    if not wanted:
        raise TableError("no row has a label: label the nodes of the table")
    cache.mkdir(parents=True, exist_ok=True)
    tasks: list[Task] = []
    for uid, mine in wanted.items():
        paths = folder.series[uid].paths
        tasks.append((paths, list(mine.values()), settings, cache / f"{_key(paths, list(mine.values()), settings)}.npz"))
    todo = [task for task in tasks if not task[-1].exists()]
    for _ in range(len(tasks) - len(todo)):
        progress()
    reasons: dict[Path, str] = {}
    for task, reason in zip(todo, _run(todo, options.processes), strict=True):
        if reason:
            reasons[task[-1]] = reason
        progress()
    table_check.refuse_problems(
        [
            Problem(
                min(mine),
                "series_uid",
                f"the series cannot be used: {reasons[task[-1]]}",
                "remove its rows, or correct the series",
            )
            for task, mine in zip(tasks, wanted.values(), strict=True)
            if task[-1] in reasons
        ],
        "reading the series",
    )
    return _join(tasks)


def _place(row: NodeRow) -> tuple[str, int, float, float, float, float]:
    return row.sop_uid, row.frame or 0, row.left, row.top, row.right, row.bottom


def _key(paths: Sequence[Path], rows: Sequence[NodeRow], settings: CropSettings) -> str:
    """Return the name of the cache file, which depends on images, positions, settings and code."""
    code = [
        inspect.getsource(module) for module in (crop, orientation, window, blood_pool, chest_anatomy, cohorts, series_crops)
    ]
    images = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    places = [(*_place(row), row.below, row.above, row.contour, row.short_axis_mm, row.side, row.level) for row in rows]
    return hashlib.sha256(repr((code, images, places, settings)).encode()).hexdigest()[:32]


def _run(todo: Sequence[Task], processes: int) -> Iterator[str]:
    if not processes or len(todo) < 2:
        yield from map(series_crops.crop_series, todo)
        return
    with ProcessPoolExecutor(min(processes, len(todo)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(series_crops.crop_series, todo)


def _join(tasks: Sequence[Task]) -> NodeCrops:
    parts: list[Mapping[str, npt.NDArray[Any]]] = []
    for task in tasks:
        with np.load(task[-1], allow_pickle=False) as stored:
            parts.append({name: stored[name] for name in ("fsc", "asc", "short_axis", "regions", "acquisition")})
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
    return NodeCrops(cohort, joined["acquisition"], joined["regions"], held_out, series)


CROPS: Final = (Crop.FSC, Crop.ASC)  # the order in ``NodeCrops.regions``
