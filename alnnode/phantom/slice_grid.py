"""The half-resolution grid on which the chest is drawn slice by slice, and the drawing functions that all structures share.

A structure is a depth map: the distance (mm) of each pixel from the surface of the structure, positive inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.body_frame import BodyFrame

if TYPE_CHECKING:
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray

_TEXTURE_STEP_MM = 1.5


class SliceGrid:
    """The coordinates of the pixels of one slice.

    Args:
        patient: the patient that is drawn.
        x: patient x of the columns, mm, shape (columns,).
        y: patient y of the rows, mm, shape (rows,).
        texture: the periodic tile that `noise.sample_tissue_texture` returns.

    Attributes:
        x: patient x, shape (1, columns).
        y: patient y, shape (rows, 1).
        u: canonical distance from the midline, shape (1, columns).
        signed_u: likewise, negative on the right.
        v: canonical v, shape (rows, columns).
    """

    def __init__(self, patient: PatientParameters, x: FloatArray, y: FloatArray, texture: FloatArray) -> None:
        self.x, self.y = x[None, :], y[:, None]
        self.u, self.signed_u, self.v = BodyFrame.from_parameters(patient).from_patient(self.x, self.y)
        # The width of a soft edge: it represents the point spread function.
        self._soft = np.float32(max(patient.psf, 0.75 * abs(float(x[1] - x[0]))))
        self._texture = texture
        self._rows = np.arange(len(y)) % texture.shape[1]
        self._columns = np.arange(len(x)) % texture.shape[2]

    def coverage(self, depth: FloatArray) -> FloatArray:
        """Return the share (0 to 1) of each pixel that a structure covers."""
        cover: FloatArray = np.clip(0.5 + depth / self._soft, 0, 1).astype(np.float32)
        return cover

    def blend(self, hu: FloatArray, depth: FloatArray, value: FloatArray | float) -> None:
        """Draw a structure of attenuation ``value`` (HU) over ``hu``."""
        cover = self.coverage(depth)
        hu += cover * (value - hu)

    def texture_at(self, z: float, offset: int = 0) -> FloatArray:
        """Return the smooth texture of the slice at ``z`` mm: zero mean, unit deviation, shape (rows, columns)."""
        position = (z / _TEXTURE_STEP_MM + offset) % self._texture.shape[0]
        low = int(position)
        part = np.float32(position - low)
        high = (low + 1) % self._texture.shape[0]
        plane = self._texture[low] * (1 - part) + self._texture[high] * part
        texture: FloatArray = plane[np.ix_(self._rows, self._columns)]
        return texture

    def ellipse(
        self, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0, signed: bool = False
    ) -> FloatArray:
        """Return the depth under an ellipse.

        Args:
            centre: (u, v), mm.
            radii: semi-axes along u and v, mm.
            angle: rotation, rad.
            signed: whether the ellipse lies on one side only, at signed u, instead of on both sides.
        """
        du = (self.signed_u if signed else self.u) - np.float32(centre[0])
        dv = self.v - np.float32(centre[1])
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        p, q = (du * c + dv * s) / np.float32(radii[0]), (dv * c - du * s) / np.float32(radii[1])
        r = np.sqrt(p * p + q * q)
        depth: FloatArray = (1 - r) * np.float32(min(radii))
        return depth
