"""Make the training axillae of the detector in parallel: axillae of patients, the same with drawn nodes, and axillae of phantoms."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import torch

from alnnode import phantom
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.detector import mirrored_ramps
from alnnode.locate.search_grid import search_grids
from alnnode.phantom import PhantomSettings
from alnnode.records import Side
from training.data.cohort import as_volume
from training.detection.axilla_implants import AxillaImplanter
from training.detection.crops import HIGH_HU, LOW_HU, AxillaCrop, truth_on
from training.detection.samples import Axilla, Kind, axilla

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

GROUPS = (4, 10)  # lowest and highest number of groups drawn into one axilla
DISTRACTORS = (2, 7)


@dataclass(frozen=True, slots=True)
class AxillaCounts:
    """How many training axillae are made, and from what.

    Attributes:
        copies: number of times that nodes are drawn into each crop.
        phantoms: number of phantoms.
        seed: of drawings and phantoms.
        processes: number of parallel processes.
    """

    copies: int
    phantoms: int
    seed: int
    processes: int


def training_axillae(files: Sequence[Path], counts: AxillaCounts, settings: PhantomSettings) -> Iterator[Axilla]:
    """Yield each crop unchanged, then with drawn nodes, then both axillae of each phantom; the order is always the same.

    Args:
        files: crops (`AxillaCrop.to_bytes`).
        counts: how many axillae are made.
        settings: of the phantoms.
    """
    copies, seed = counts.copies, counts.seed
    torch.set_num_threads(1)
    with ProcessPoolExecutor(counts.processes, mp_context=get_context("spawn"), initializer=_use_one_thread) as pool:
        blocks = [
            (path, seed + 1000 * n + first, min(4, copies - first))
            for n, path in enumerate(files)
            for first in range(0, copies, 4)
        ]
        drawn = pool.map(_drawn, *zip(*blocks, strict=True)) if blocks else iter(())
        made = pool.map(partial(_phantom, seed, settings), range(counts.phantoms))
        for path in files:
            crop = AxillaCrop.from_bytes(path.read_bytes())
            yield axilla(crop, crop.hu, crop.nodes, Kind.REAL)
        for block in drawn:
            yield from block
        for both in made:
            yield from both


def _use_one_thread() -> None:
    torch.set_num_threads(1)


def _drawn(path: Path, seed: int, copies: int) -> list[Axilla]:
    crop = AxillaCrop.from_bytes(path.read_bytes())
    implanter, rng = AxillaImplanter(crop), np.random.default_rng([seed, 5])
    painted = [
        implanter.implant(
            seed + n, int(rng.integers(GROUPS[0], GROUPS[1] + 1)), int(rng.integers(DISTRACTORS[0], DISTRACTORS[1] + 1))
        )
        for n in range(copies)
    ]
    return [axilla(crop, one.hu, one.nodes, Kind.DRAWN) for one in painted]


def _phantom(seed: int, settings: PhantomSettings, index: int) -> list[Axilla]:
    # Every third phantom is plain, because patients also have isolated nodes in clear fat.
    made = phantom.make_patient(seed, index, settings if index % 3 else PhantomSettings())
    return [axilla(crop, crop.hu, crop.nodes, Kind.PHANTOM) for crop in phantom_crops(made)]


def phantom_crops(made: phantom.Phantom) -> list[AxillaCrop]:
    """Return the crops of both axillae of a phantom with the true labels of its nodes."""
    found = []
    for grid in search_grids(ChestAnatomy(as_volume(made))):
        labels = truth_on(grid, made.labels)
        turn = slice(None, None, -1 if grid.side is Side.LEFT else 1)
        hu, region, nodes = (
            np.ascontiguousarray(np.clip(grid.hu, LOW_HU, HIGH_HU)[..., turn]),
            np.ascontiguousarray(grid.region[..., turn]),
            np.ascontiguousarray(labels.astype(np.uint8)[..., turn]),
        )
        ramps = mirrored_ramps(grid.ramps, hu.shape[2]) if grid.side is Side.LEFT else grid.ramps
        if region.any():
            none = np.zeros((0, 4), np.float32)
            found.append(AxillaCrop("", grid.side, hu, region, ramps, nodes, none, none[:, :3], made.patient.thickness))
    return found
