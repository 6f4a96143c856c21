"""Find crops of one image under two names of patients: copies, also shifted, recompressed, filtered or with other noise.

Equal pixels are found by `training.data.cohort.check_leakage`. Here each crop is reduced to its fine structure (a difference of Gaussians, so
that the mere shape of a round node in fat does not count), and compared by normalized cross-correlation over small shifts (Lewis 1995).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from training.data.cohort import LeakageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from training.data.cohort import Cohort

SIDE: Final = 32  # pixels of a reduced crop
FINE, COARSE = 0.7, 2.0  # standard deviations of the Gaussians, pixels of the reduced crop
SHIFT: Final = 4  # pixels of the reduced crop in each direction: 6 mm in a crop of 48 mm
ALIKE: Final = 0.80  # correlation of two crops of one image


def check_cohort(cohort: Cohort) -> None:
    """Check that no two patients have nearly the same crop.

    Raises:
        LeakageError: there are such crops; the message states how many pairs, and names the first two rows.
    """
    pairs = near_duplicates(cohort.fsc[:, 0, 0], cohort.patient)
    if pairs:
        one, other, correlation = pairs[0]
        raise LeakageError(
            f"{len(pairs)} pair(s) of crops of different patient names show nearly the same image (rows {one} and {other}: correlation "
            f"{correlation:.2f}); check whether one patient has two names"
        )


def near_duplicates(
    crops: npt.NDArray[np.uint8], patients: npt.NDArray[np.str_], alike: float = ALIKE
) -> list[tuple[int, int, float]]:
    """Return the pairs of rows of different patients whose crops show nearly the same image, with their correlation.

    Args:
        crops: (N, S, S) one window of the fixed-size crops.
        patients: (N,) names.
        alike: least correlation.
    """
    spectra = np.fft.rfft2(np.stack([_structure(crop) for crop in crops])) if len(crops) else np.zeros((0, SIDE, SIDE))
    near = [(SIDE + n) % SIDE for n in range(-SHIFT, SHIFT + 1)]
    found: list[tuple[int, int, float]] = []
    for row in range(len(crops) - 1):
        later = np.flatnonzero(patients[row + 1 :] != patients[row]) + row + 1
        if not later.size:
            continue
        maps = np.fft.irfft2(spectra[row][None] * spectra[later].conj(), (SIDE, SIDE))
        best = maps[:, near][:, :, near].max(axis=(1, 2))
        found.extend((row, int(later[n]), float(best[n])) for n in np.flatnonzero(best >= alike))
    return found


def _structure(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the fine structure of a crop, (`SIDE`, `SIDE`), of mean 0 and norm 1; zeros for a crop without structure."""
    reduced = ndimage.zoom(crop.astype(np.float64), SIDE / crop.shape[0], order=1, grid_mode=True, mode="nearest")
    fine = ndimage.gaussian_filter(reduced, FINE) - ndimage.gaussian_filter(reduced, COARSE)
    fine *= np.outer(np.hanning(SIDE + 2)[1:-1], np.hanning(SIDE + 2)[1:-1]) ** 0.5
    fine -= fine.mean()
    norm = float(np.linalg.norm(fine))
    structure: npt.NDArray[np.float64] = fine / norm if norm > 1 else np.zeros_like(fine)
    return structure
