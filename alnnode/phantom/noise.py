"""Texture of tissue and noise of CT images, as periodic tiles that are generated once per patient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from alnnode.records import FloatArray


def sample_tissue_texture(rng: np.random.Generator) -> FloatArray:
    """Return a periodic volume (64, 128, 128) of zero mean and unit deviation that is smooth over a few voxels."""
    white = rng.standard_normal((64, 128, 128), dtype=np.float32)
    tile: FloatArray = ndimage.gaussian_filter(white, (1.5, 2.2, 2.2), mode="wrap")
    tile -= tile.mean()
    tile /= tile.std()
    return tile


def sample_noise_tiles(rng: np.random.Generator, size: int, count: int = 6) -> FloatArray:
    """Return periodic planes (count, size, size) with the spectrum of filtered back-projection noise.

    The noise power of a CT image rises linearly with frequency, and the reconstruction kernel rolls it off at high frequencies
    (Riederer et al., Phys Med Biol 1978): neighbouring pixels are correlated, and low frequencies are weak.
    """
    fy = np.fft.fftfreq(size)[:, None]
    fx = np.fft.rfftfreq(size)[None, :]
    frequency = np.hypot(fy, fx)
    cut = rng.uniform(0.14, 0.22)
    shape = np.sqrt(frequency + 0.01) * np.exp(-((frequency / cut) ** 2))
    tiles = np.empty((count, size, size), np.float32)
    for n in range(count):
        white = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
        plane = np.fft.irfft2(white * shape, s=(size, size))
        tiles[n] = plane / plane.std()
    return tiles


def sample_noise_plane(rng: np.random.Generator, tiles: FloatArray) -> FloatArray:
    """Return one of the ``tiles``, shifted and mirrored at random, so that neighbouring slices have independent noise."""
    plane: FloatArray = tiles[rng.integers(len(tiles))]
    size = plane.shape[0]
    plane = np.roll(plane, (int(rng.integers(size)), int(rng.integers(size))), axis=(0, 1))
    if rng.random() < 0.5:
        plane = plane[::-1]
    if rng.random() < 0.5:
        plane = plane[:, ::-1]
    return plane
