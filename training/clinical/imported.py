"""The result of every importer: rows, and the marks that it could not import with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from alnnode.records import Side

if TYPE_CHECKING:
    from alnnode.records import Volume
    from training.clinical.dicom_folder import ImageSeries
    from training.clinical.node_table import NodeRow

BODY_HU: Final = -300


@dataclass(slots=True)
class ImportedNodes:
    """Rows, and a line for each mark that gave no row; contains no patient data."""

    rows: list[NodeRow] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def patient_of(series: ImageSeries) -> str:
    """Return the name of the patient of a series: the Patient ID, or the Study Instance UID if it is empty."""
    return series.patient_id or series.study_uid


def side_of(volume: Volume, k: int, j: float, i: float) -> Side:
    """Return the side of the body on which a voxel lies, relative to the middle of everything denser than air in its slice."""
    columns = np.flatnonzero((volume.voxels[k] > BODY_HU).any(axis=0))
    middle = (columns[0] + columns[-1]) / 2 if columns.size else (volume.voxels.shape[2] - 1) / 2
    # +x is the patient's left (PS3.3 C.7.6.2.1.1).
    across = volume.patient_point(k, j, i)[0] - volume.patient_point(k, j, float(middle))[0]
    return Side.LEFT if across > 0 else Side.RIGHT
