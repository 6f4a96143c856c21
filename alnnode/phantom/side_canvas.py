"""One side of a patient on the canvas: structures in canonical coordinates are drawn where that side has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.body_frame import BodyFrame

if TYPE_CHECKING:
    from alnnode.phantom.canvas import Canvas, Point
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray, Side


@dataclass(frozen=True, slots=True)
class SideCanvas:
    """The canvas, the patient and the side that vessels, nodes and devices are drawn on."""

    canvas: Canvas
    patient: PatientParameters
    side: Side

    def to_patient(self, u: float, v: float, z: float) -> Point:
        """Return the patient coordinates (x, y, z), mm, of a canonical point."""
        return BodyFrame.from_parameters(self.patient).to_patient(self.side, u, v, z)

    def draw_path(self, points: FloatArray, radii: tuple[float, float], value: float) -> None:
        """Draw a tube along a path.

        Args:
            points: canonical, shape (n, 3), mm.
            radii: at the first and at the last point, mm; linear in between.
            value: attenuation, HU.
        """
        path = [self.to_patient(*map(float, point)) for point in points]
        along = np.linspace(radii[0], radii[1], len(path))
        for i in range(len(path) - 1):
            self.canvas.draw_tube(path[i], path[i + 1], (float(along[i]), float(along[i + 1])), value, self.patient.psf)
