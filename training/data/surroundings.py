"""Measure the share of tissue between fat and muscle in the axillae of patients and of phantoms, and draw both side by side.

``python -m training.data.surroundings --ct FOLDER --ct FOLDER --phantoms 6 --picture docs/img/phantom-axillae.png``
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer evaluates annotations
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import typer
from matplotlib.figure import Figure
from pydicom.misc import is_dicom
from scipy import ndimage

from alnnode.imaging.series import read_volume
from alnnode.imaging.window import apply_window
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.phantom import PhantomSettings, Surroundings, make_patient
from training.data.cohort import as_volume

if TYPE_CHECKING:
    from alnnode.locate.chest import Axilla
    from alnnode.records import FloatArray, HounsfieldArray, Volume

    Shown = tuple[str, FloatArray]

STRAND_HU: Final = (-75.0, -20.0)  # strands, septa, partial volume: neither plain fat nor muscle
_FAT_HU: Final = (-160.0, -40.0)
_FAT_BOX_MM: Final = 25.0
_LEAST_FAT: Final = 0.2  # smallest share of fat in the box; with less, the box lies between muscles
_SMOOTH_MM: Final = 0.64
_HEIGHTS: Final = (0.3, 0.5, 0.7)  # quantiles of the search region
_HALF_MM: Final = 80.0


def strand_shares(volume: Volume) -> tuple[float, ...]:
    """Return the share of voxels of `STRAND_HU` in the search region of each axilla (right, left); NaN without a region."""
    site = ChestAnatomy(volume)
    if site.axillae is None:
        return float("nan"), float("nan")
    canonical = site.frame.canonical(volume.voxels)
    return tuple(_share(canonical, site.frame.spacing, site.coarse.step, axilla) for axilla in site.axillae)


def _share(hu: HounsfieldArray, spacing: tuple[float, float, float], step: tuple[int, int, int], axilla: Axilla) -> float:
    if not axilla.mask.any():
        return float("nan")
    (box,) = ndimage.find_objects(axilla.mask.astype(np.uint8))
    part = hu[tuple(slice(s.start * n, s.stop * n) for s, n in zip(box, step, strict=True))]
    mask = axilla.mask[box]
    for axis, times in enumerate(step):
        mask = np.repeat(mask, times, axis=axis)
    mask = mask[tuple(slice(0, n) for n in part.shape)]
    smooth = ndimage.gaussian_filter(
        np.clip(part, -200, 300).astype(np.float32), [_SMOOTH_MM / d for d in spacing], truncate=3.0
    )
    fat = ((smooth > _FAT_HU[0]) & (smooth < _FAT_HU[1])).astype(np.float32)
    mask &= ndimage.uniform_filter(fat, [max(1, round(_FAT_BOX_MM / d)) for d in spacing]) > _LEAST_FAT
    inside = smooth[mask]
    return float(np.mean((inside > STRAND_HU[0]) & (inside < STRAND_HU[1]))) if inside.size else float("nan")


def tiles(volume: Volume) -> FloatArray:
    """Return squares of 160 mm around the right axilla at three heights side by side, from the feet up, window 40/400 HU."""
    site = ChestAnatomy(volume)
    if site.axillae is None or not site.axillae[0].mask.any():
        return np.zeros((256, 256 * len(_HEIGHTS)), np.float32)
    hu, spacing, step = site.frame.canonical(volume.voxels), site.frame.spacing, site.coarse.step
    heights, rows, columns = np.nonzero(site.axillae[0].mask)
    across = (np.arange(256) + 0.5) * (2 * _HALF_MM / 256) - _HALF_MM
    squares = []
    for share in _HEIGHTS:
        height = int(np.quantile(heights, share))
        here = heights == height
        centre = rows[here].mean() * step[1], columns[here].mean() * step[2]
        grid = np.meshgrid(*(c + across / d for c, d in zip(centre, spacing[1:], strict=True)), indexing="ij")
        plane = hu[min(height * step[0], len(hu) - 1)].astype(np.float32)
        squares.append(apply_window(ndimage.map_coordinates(plane, grid, order=1, cval=-1000.0), 40, 400))
    return np.concatenate(squares, axis=1)


def measure(
    ct: Annotated[list[Path] | None, typer.Option(help="Folder of a CT series; may be repeated.")] = None,
    phantoms: Annotated[int, typer.Option(help="Phantoms drawn with each kind of surroundings.")] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the phantoms.")] = 5001,
    picture: Annotated[
        Path | None, typer.Option(help="PNG file to write: patients on the left, phantoms on the right.")
    ] = None,
) -> None:
    """Print the share of tissue between fat and muscle in the axillae of patients and phantoms."""
    patients: list[Shown] = []
    drawn: list[Shown] = []
    for folder in ct or []:
        volume = read_volume(sorted(path for path in folder.rglob("*") if path.is_file() and is_dicom(path)))
        _print(folder.name, strand_shares(volume))
        patients.append((folder.name, tiles(volume)))
    for kind in (Surroundings.AXILLA, Surroundings.PLAIN):
        for index in range(phantoms):
            volume = as_volume(make_patient(seed, index, PhantomSettings(surroundings=kind)))
            _print(f"{kind.value} {index}", strand_shares(volume))
            if kind is Surroundings.AXILLA:
                drawn.append((f"phantom {index}", tiles(volume)))
    if picture is not None:
        _draw(patients, drawn, picture)


def _print(name: str, shares: tuple[float, ...]) -> None:
    print(f"{name:<28} right {shares[0]:.3f}  left {shares[1]:.3f}", flush=True)


def _draw(patients: list[Shown], phantoms: list[Shown], path: Path) -> None:
    rows = max(len(patients), len(phantoms))
    figure = Figure(figsize=(15, 2.65 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    for column, shown in zip(axes.T, (patients, phantoms), strict=True):
        for axis, (name, squares) in zip(column, shown, strict=False):
            axis.set_title(name, fontsize=9)
            axis.imshow(squares, cmap="gray", vmin=0, vmax=1)
    figure.savefig(path, dpi=75)


if __name__ == "__main__":
    typer.run(measure)
