"""The nodes of one series, cropped by the code of the node and kept; runs in processes of its own, so nothing here reaches torch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

from alnnode.errors import NotAnalysable
from alnnode.imaging.crop import CropSettings, asc_geometry, fsc_geometry
from alnnode.imaging.series import read_volume
from alnnode.records import Box
from training.clinical.outline import mask_of, short_axis
from training.clinical.table import NodeRow, edges
from training.data import arrays, regions
from training.data import cohort as cohorts

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.records import Volume

Task = tuple[list["Path"], list[NodeRow], CropSettings, "Path"]
IMAGED: Final = ("side", "level", "thickness", "noise")
THIN_MM, QUIET_HU = 2.0, 12.0  # where the classes of a subgroup table part
SOFT_HU: Final = (0, 100)


def keep(task: Task) -> str:
    """Crop the nodes of one series and keep them; return why not, or nothing."""
    paths, rows, settings, path = task
    try:
        volume = read_volume(paths)
        places = [voxel_box(row, volume) for row in rows]
    except NotAnalysable as error:
        return str(error)
    seed = int.from_bytes(hashlib.sha256(rows[0].series_uid.encode()).digest()[:8], "big")
    fsc, asc = cohorts.crop_nodes(volume, places, settings, np.random.default_rng(seed))
    arrays.save(
        path,
        {
            "fsc": fsc,
            "asc": asc,
            "short_axis": np.array(
                [short_axis(row, volume, box) for row, (box, _) in zip(rows, places, strict=True)], np.float32
            ),
            "regions": np.array([_regions(row, volume, *place, settings) for row, place in zip(rows, places, strict=True)]),
            "imaged": np.array([_imaged(row, volume, k) for row, (_, k) in zip(rows, places, strict=True)], "U24"),
        },
    )
    return ""


def _regions(row: NodeRow, volume: Volume, box: Box, k: int, settings: CropSettings) -> npt.NDArray[np.uint8]:
    mask = mask_of(row, box, (volume.voxels.shape[1], volume.voxels.shape[2]))
    geometries = [of(volume, box, k, settings) for of in (fsc_geometry, asc_geometry)]
    found = [regions.regions(regions.on_crop(mask, g), abs(g.step_row) * volume.spacing[1]) for g in geometries]
    return np.stack(found).astype(np.uint8)


def _imaged(row: NodeRow, volume: Volume, k: int) -> list[str]:
    thickness = volume.slice_thickness or volume.spacing[0]
    thin = f"under {THIN_MM:g} mm" if thickness < THIN_MM else f"{THIN_MM:g} mm and more"
    quiet = f"under {QUIET_HU:g} HU" if noise_of(volume, k) < QUIET_HU else f"{QUIET_HU:g} HU and more"
    return [row.side or "not told", row.level or "not told", thin, quiet]


def voxel_box(row: NodeRow, volume: Volume) -> tuple[Box, int]:
    """Return the box in voxels and the index of the slice.

    Raises:
        NotAnalysable: the volume has no such slice.
    """
    names = [(at.sop_instance_uid, at.frame_number) for at in volume.slices]
    if (row.sop_uid, row.frame) not in names:
        raise NotAnalysable("the slice of a node was left out as a duplicate or a localizer")
    k = names.index((row.sop_uid, row.frame))
    (i0, i1), (j0, j1) = edges(row.left, row.right), edges(row.top, row.bottom)
    return Box(max(k - row.below, 0), j0, i0, min(k + row.above + 1, len(names)), j1, i1), k


def noise_of(volume: Volume, k: int) -> float:
    """Return the noise of a slice in HU: the spread of the differences of neighbouring pixels of soft tissue, robustly.

    Neighbours share noise under a smooth kernel, so this is less than the standard deviation in water; it orders images, no more.
    """
    plane = volume.voxels[k].astype(np.int32)
    soft = (plane >= SOFT_HU[0]) & (plane <= SOFT_HU[1])
    differences = np.diff(plane, axis=1)[soft[:, 1:] & soft[:, :-1]]
    return float(1.4826 * np.median(np.abs(differences)) / np.sqrt(2)) if differences.size else 0.0
