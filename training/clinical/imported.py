"""What every importer gives: rows, and what it left out and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from alnnode.records import Side

if TYPE_CHECKING:
    from alnnode.records import Volume
    from training.clinical.folder import Series
    from training.clinical.table import NodeRow

BODY_HU: Final = -300


@dataclass(slots=True)
class Imported:
    """Rows, and a line for each mark that gave none; free of patient data."""

    rows: list[NodeRow] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def patient_of(series: Series) -> str:
    """Return the name of the patient of a series: the Patient ID, or the study where there is none."""
    return series.patient_id or series.study_uid


def side_of(volume: Volume, k: int, j: float, i: float) -> Side:
    """Return the side of the body on which a place lies: of the middle of what is denser than air in its slice."""
    columns = np.flatnonzero((volume.voxels[k] > BODY_HU).any(axis=0))
    middle = (columns[0] + columns[-1]) / 2 if columns.size else (volume.voxels.shape[2] - 1) / 2
    # +x is the patient's left (PS3.3 C.7.6.2.1.1).
    across = volume.patient_point(k, j, i)[0] - volume.patient_point(k, j, float(middle))[0]
    return Side.LEFT if across > 0 else Side.RIGHT
