"""Nodes that networks learn within seconds: bright discs, of which the large ones are malignant."""

import numpy as np

from training.data.cohort import Cohort


def discs(count: int, seed: int, patient: str) -> Cohort:
    """Return nodes of one patient with two equal variants of 32 x 32 pixels in one channel; every second one is malignant."""
    rng = np.random.default_rng(seed)
    malignant = np.arange(count) % 2 == 0
    v, u = np.mgrid[:32, :32]
    pictures = [
        ((v - 16) ** 2 + (u - 16) ** 2 < (11 if bad else 5) ** 2) * 150 + rng.integers(0, 40, (1, 32, 32)) for bad in malignant
    ]
    crops = np.stack([np.stack([p, p]) for p in pictures]).astype(np.uint8)
    return Cohort(crops, crops, malignant, np.array([patient] * count), np.where(malignant, 12, 6).astype(np.float32))
