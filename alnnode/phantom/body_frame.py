"""The map between canonical coordinates and the coordinates of one patient.

*Canonical* coordinates are millimetres in a mean body: ``u`` is the distance from the midline (the same on both sides), ``v``
points to the back and ``z`` to the head, with 0 at the middle of the axilla. *Patient* coordinates are LPS (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.records import Side

if TYPE_CHECKING:
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray


@dataclass(frozen=True, slots=True)
class BodyFrame:
    """The map between the canonical and the patient coordinates of one patient; fields as in `PatientParameters`."""

    scale: float
    width: tuple[float, float]
    tilt: float
    shift: tuple[float, float]

    @classmethod
    def from_parameters(cls, patient: PatientParameters) -> BodyFrame:
        """Return the frame of a patient."""
        return cls(patient.scale, patient.width, patient.tilt, patient.shift)

    def to_patient(self, side: Side, u: float, v: float, z: float) -> tuple[float, float, float]:
        """Return the patient coordinates (x, y, z), mm, of a canonical point on one side."""
        sign = 1 if side is Side.LEFT else -1
        x = sign * u * self.scale * self.width[(sign + 1) // 2]
        return x + self.shift[0], v * self.scale + self.tilt * x + self.shift[1], z * self.scale

    def from_patient(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return canonical coordinates of patient positions.

        Args:
            x: patient x, mm.
            y: patient y, mm; broadcasts with ``x``.

        Returns:
            ``u`` and signed ``u`` (negative on the right), both of the shape of ``x``, and ``v`` of the broadcast shape, mm.
        """
        centred = x - np.float32(self.shift[0])
        width = np.where(centred < 0, self.width[0], self.width[1]).astype(np.float32)
        signed: FloatArray = centred / (width * np.float32(self.scale))
        upright = (y - np.float32(self.shift[1]) - np.float32(self.tilt) * centred) / np.float32(self.scale)
        return np.abs(signed), signed, upright.astype(np.float32)
