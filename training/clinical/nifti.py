"""Read masks from NIfTI files (RAS) and resample them to the voxels of the series (LPS); any flip, order of axes or spacing is supported.

A file belongs to the series whose Series Instance UID, Study Instance UID, Patient ID or folder name equals its file name.
`training.clinical.mask_components` decides which voxels are one node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy import ndimage

from alnnode.errors import NotAnalysable
from alnnode.imaging.series import read_volume
from alnnode.locate.marks.placing import MAX_EXTENT_MM
from alnnode.locate.measure import node_from_mask
from training.clinical import mask_components
from training.clinical.imported import ImportedNodes, patient_of, side_of
from training.clinical.node_table import NodeRow, row_of_node

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.records import Volume
    from training.clinical.dicom_folder import DicomFolder, ImageSeries

    Mask = npt.NDArray[np.bool_]
    Matrix = npt.NDArray[np.float64]

ENDINGS: Final = (".nii", ".nii.gz")
LPS_OF_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
LEAST_INSIDE: Final = 0.8  # share of a node's volume that must lie in the series
LARGEST_MM3: Final = 200_000.0  # volume of a node of 7 cm


def read_mask(path: Path, folder: DicomFolder) -> ImportedNodes:
    """Return the nodes of one mask file."""
    found = ImportedNodes()
    series = _series_of(path, folder)
    if isinstance(series, str):
        found.left_out.append(f"{path.name}: {series}")
        return found
    try:
        volume = read_volume(series.paths)
        image: Any = nibabel.load(path)
        values = np.asarray(image.dataobj)
    except NotAnalysable as error:
        found.left_out.append(f"{path.name}: its series cannot be used: {error}")
        return found
    except (ImageFileError, OSError, ValueError):
        found.left_out.append(f"{path.name}: cannot be read as NIfTI")
        return found
    if values.ndim != 3:
        found.left_out.append(f"{path.name}: has {values.ndim} axes; a mask has 3")
        return found
    # nibabel invents a position for such a file, with which a mask of the other side can lie in the series.
    if not (image.header["sform_code"] or image.header["qform_code"]):
        found.left_out.append(
            f"{path.name}: has no orientation (sform_code and qform_code are 0); save it with the geometry of the CT on which it was drawn"
        )
        return found
    spacing = tuple(float(step) for step in np.linalg.norm(image.affine[:3, :3], axis=0))
    of_voxel = np.linalg.inv(LPS_OF_RAS @ image.affine) @ volume.affine  # (k, j, i, 1) of the series to a voxel of the file
    remarks: list[str] = []
    for name, mask in mask_components.nodes_of_mask(values, spacing, remarks):
        reach = mask_components.extent_mm(mask, spacing)
        row = (
            f"extends over {reach:.0f} mm, which is too large for a node"
            if reach > MAX_EXTENT_MM
            else _row(mask, of_voxel, volume, series, name)
        )
        if isinstance(row, str):
            found.left_out.append(f"{path.name}, node {name}: {row}")
        else:
            found.rows.append(row)
    found.left_out += [f"{path.name}, {remark}" for remark in remarks]
    return found


def stem(path: Path) -> str:
    """Return the name of a file without .nii or .nii.gz."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _series_of(path: Path, folder: DicomFolder) -> ImageSeries | str:
    name = stem(path)
    if name in folder.series:
        return folder.series[name]
    matching = [
        series
        for series in folder.series.values()
        if series.is_ct and name in {series.study_uid, series.patient_id, series.paths[0].parent.name}
    ]
    if len(matching) == 1:
        return matching[0]
    return f"{len(matching)} CT series match its name; use the Series Instance UID as the file name"


def _row(mask: Mask, of_voxel: Matrix, volume: Volume, series: ImageSeries, name: str) -> NodeRow | str:
    size = float(mask.sum()) * abs(float(np.linalg.det(volume.affine[:3, :3]))) / abs(float(np.linalg.det(of_voxel[:3, :3])))
    if size > LARGEST_MM3:
        return f"has {size / 1000:.0f} ml, which is too large for a node"
    placed, offset = _in_series(mask, of_voxel, volume)
    voxel = abs(float(np.linalg.det(volume.affine[:3, :3])))
    if placed.sum() * voxel < LEAST_INSIDE * size:
        return "does not lie in this series; check the file and its coordinates"
    middle = ndimage.center_of_mass(placed)
    k, j, i = (o + m for o, m in zip(offset, middle, strict=True))
    node = node_from_mask(volume, placed, offset, side_of(volume, round(k), j, i), 1)
    # source_uid is the value without the number of the component, because a table of labels may be joined by the value.
    origin = NodeRow(
        patient_of(series), series.study_uid, series.series_uid, "", None, 0, 0, 0, 0,
        source="NIfTI", source_uid=name.partition(".")[0],
    )  # fmt: skip
    return row_of_node(node, volume, origin)


def _in_series(mask: Mask, of_voxel: Matrix, volume: Volume) -> tuple[Mask, tuple[int, int, int]]:
    """Return the mask on the voxels of the series (nearest neighbour) within the smallest box, and the first voxel of the box."""
    back = np.linalg.inv(of_voxel)
    inside = np.argwhere(mask)
    low, high = inside.min(axis=0) - 0.5, inside.max(axis=0) + 0.5
    corners = np.array([[*corner, 1.0] for corner in np.stack(np.meshgrid(*zip(low, high, strict=True)), -1).reshape(-1, 3)])
    reached = (corners @ back.T)[:, :3]
    limits = np.array(volume.voxels.shape)
    start = np.clip(np.floor(reached.min(axis=0)).astype(int) - 1, 0, limits - 1)
    stop = np.clip(np.ceil(reached.max(axis=0)).astype(int) + 2, start + 1, limits)
    matrix = of_voxel[:3, :3]
    shift = matrix @ start + of_voxel[:3, 3]
    shape = tuple(int(n) for n in stop - start)
    placed = ndimage.affine_transform(mask.astype(np.uint8), matrix, shift, shape, order=0, mode="grid-constant")
    return placed.astype(bool), (int(start[0]), int(start[1]), int(start[2]))
