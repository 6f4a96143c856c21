"""Crop the nodes of one series with the code of the node and cache the crops; runs in worker processes, so it must not import torch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

from alnnode.errors import NotAnalysable
from alnnode.imaging.crop import CropSettings, asc_geometry, fsc_geometry
from alnnode.imaging.series import read_volume
from alnnode.records import Box
from training.clinical.node_table import NodeRow, edges
from training.clinical.outline import mask_of, short_axis
from training.data import arrays, regions
from training.data import cohort as cohorts

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.records import Volume

Task = tuple[list["Path"], list[NodeRow], CropSettings, "Path"]
ACQUISITION: Final = ("side", "level", "thickness", "noise")
THIN_MM, QUIET_HU = 2.0, 12.0  # limits between the subgroups of slice thickness and noise
SOFT_HU: Final = (0, 100)


def crop_series(task: Task) -> str:
    """Crop the nodes of one series and write the crops; return the reason if that is not possible, else an empty text."""
    paths, rows, settings, path = task
    try:
        volume = read_volume(paths)
        places = [voxel_box(row, volume) for row in rows]
    except NotAnalysable as error:
        return str(error)
    seed = int.from_bytes(hashlib.sha256(rows[0].series_uid.encode()).digest()[:8], "big")
    fsc, asc = cohorts.crop_nodes(volume, places, settings, np.random.default_rng(seed))
    arrays.save_arrays(
        path,
        {
            "fsc": fsc,
            "asc": asc,
            "short_axis": np.array(
                [short_axis(row, volume, box) for row, (box, _) in zip(rows, places, strict=True)], np.float32
            ),
            "regions": np.array([_regions(row, volume, *place, settings) for row, place in zip(rows, places, strict=True)]),
            "acquisition": np.array([_acquisition(row, volume, k) for row, (_, k) in zip(rows, places, strict=True)], "U24"),
        },
    )
    return ""


def _regions(row: NodeRow, volume: Volume, box: Box, k: int, settings: CropSettings) -> npt.NDArray[np.uint8]:
    mask = mask_of(row, box, (volume.voxels.shape[1], volume.voxels.shape[2]))
    geometries = [geometry_of(volume, box, k, settings) for geometry_of in (fsc_geometry, asc_geometry)]
    found = [regions.region_of_pixels(regions.mask_on_crop(mask, g), abs(g.step_row) * volume.spacing[1]) for g in geometries]
    return np.stack(found).astype(np.uint8)


def _acquisition(row: NodeRow, volume: Volume, k: int) -> list[str]:
    thickness = volume.slice_thickness or volume.spacing[0]
    thin = f"under {THIN_MM:g} mm" if thickness < THIN_MM else f"{THIN_MM:g} mm and more"
    quiet = f"under {QUIET_HU:g} HU" if slice_noise(volume, k) < QUIET_HU else f"{QUIET_HU:g} HU and more"
    return [row.side or "not known", row.level or "not known", thin, quiet]


def voxel_box(row: NodeRow, volume: Volume) -> tuple[Box, int]:
    """Return the box in voxels and the index of the slice.

    Raises:
        NotAnalysable: the volume has no such slice.
    """
    names = [(at.sop_instance_uid, at.frame_number) for at in volume.slices]
    if (row.sop_uid, row.frame) not in names:
        raise NotAnalysable("the slice of a node is not part of the volume: it is a duplicate or a localizer")
    k = names.index((row.sop_uid, row.frame))
    (i0, i1), (j0, j1) = edges(row.left, row.right), edges(row.top, row.bottom)
    return Box(max(k - row.below, 0), j0, i0, min(k + row.above + 1, len(names)), j1, i1), k


def slice_noise(volume: Volume, k: int) -> float:
    """Return the noise of a slice in HU: a robust spread of the differences between neighbouring pixels of soft tissue.

    A smooth kernel correlates neighbouring pixels, so the value is lower than the standard deviation in water. It only ranks images.
    """
    plane = volume.voxels[k].astype(np.int32)
    soft = (plane >= SOFT_HU[0]) & (plane <= SOFT_HU[1])
    differences = np.diff(plane, axis=1)[soft[:, 1:] & soft[:, :-1]]
    return float(1.4826 * np.median(np.abs(differences)) / np.sqrt(2)) if differences.size else 0.0
