"""From the noiseless volume to the stored image: noise, quantisation, padding and the order of rows and columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.noise import sample_noise_plane, sample_noise_tiles

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.canvas import Canvas
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import AffineMatrix, HounsfieldArray

    LabelArray = npt.NDArray[np.uint16]

_PADDING_HU = -1024
_MIN_HU, _MAX_HU = -1024, 3071  # of 12 bits with an intercept of -1024


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """Voxels and labels of a series, as in `patient.Phantom`."""

    hu: HounsfieldArray
    labels: LabelArray
    affine: AffineMatrix

    def turned_prone(self) -> LabelledImage:
        """Return the image as a scanner stores it for a prone patient: rows and columns in reverse order."""
        _, rows, columns = self.hu.shape
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, 1] * (rows - 1) + self.affine[:3, 2] * (columns - 1)
        affine[:3, 1] *= -1
        affine[:3, 2] *= -1
        hu, labels = np.ascontiguousarray(self.hu[:, ::-1, ::-1]), np.ascontiguousarray(self.labels[:, ::-1, ::-1])
        return LabelledImage(hu, labels, affine)


def add_noise(canvas: Canvas, patient: PatientParameters, rng: np.random.Generator) -> HounsfieldArray:
    """Return the HU of the stored image: the canvas with noise and padding, rounded."""
    slices, size, _ = canvas.hu.shape
    tiles = sample_noise_tiles(rng, size)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    # Noise is strongest in the middle of the body.
    noise_map = 0.72 + 0.5 * np.exp(-(axis[:, None] ** 2 / 0.25 + axis[None, :] ** 2 / 0.5))
    streak_map = np.exp(-(axis[:, None] ** 2 / 0.12)).astype(np.float32) * np.ones((1, size), np.float32)
    outside = np.hypot(axis[:, None], axis[None, :]) > 0.998
    out = np.empty(canvas.hu.shape, np.int16)
    for k in range(slices):
        height = (patient.lowest + k * patient.thickness) / patient.scale
        plane = canvas.hu[k] + sample_noise_plane(rng, tiles) * (patient.noise * noise_map)
        shoulder = float(np.interp(height, [0, 55], [0, 0.9]))
        if shoulder > 0:  # photon starvation along the shoulders causes streaks from side to side
            streaks = sample_noise_plane(rng, tiles)[: size // 2]
            streaks = np.repeat(streaks, 2, axis=0) + np.roll(np.repeat(streaks, 2, axis=0), 1, axis=0)
            smooth = np.cumsum(streaks, axis=1, dtype=np.float32)
            streaks = (smooth - np.roll(smooth, 24, axis=1)) * np.float32(0.12)
            plane += np.clip(streaks, -3, 3) * streak_map * (patient.noise * shoulder)
        np.clip(np.rint(plane), _MIN_HU, _MAX_HU, out=plane)
        if patient.padding:
            plane[outside] = _PADDING_HU
        out[k] = plane
    return out
