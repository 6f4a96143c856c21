"""Textures: periodic tiles that are made once per patient and laid anew on every slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from alnnode.records import FloatArray


def tissue_tile(rng: np.random.Generator) -> FloatArray:
    """Return a periodic volume (64, 128, 128), zero mean and unit deviation, smooth over a few voxels."""
    white = rng.standard_normal((64, 128, 128), dtype=np.float32)
    tile: FloatArray = ndimage.gaussian_filter(white, (1.5, 2.2, 2.2), mode="wrap")
    tile -= tile.mean()
    tile /= tile.std()
    return tile


def noise_tiles(rng: np.random.Generator, size: int, count: int = 6) -> FloatArray:
    """Return periodic planes (count, size, size) with the spectrum of filtered back-projection noise.

    The noise power of a CT image rises linearly with frequency and is rolled off by the reconstruction kernel
    (Riederer et al., Phys Med Biol 1978): neighbouring pixels are correlated, low frequencies are weak.
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


def lay(rng: np.random.Generator, tiles: FloatArray) -> FloatArray:
    """Return one plane of ``tiles``, shifted and mirrored at random: neighbouring slices share nothing."""
    plane: FloatArray = tiles[rng.integers(len(tiles))]
    size = plane.shape[0]
    plane = np.roll(plane, (int(rng.integers(size)), int(rng.integers(size))), axis=(0, 1))
    if rng.random() < 0.5:
        plane = plane[::-1]
    if rng.random() < 0.5:
        plane = plane[:, ::-1]
    return plane
