"""Patches for training the detector, cut and augmented on the training device.

The device stores axillae as bytes. Each patch is rotated, scaled, blurred, averaged to thicker slices and made noisy, within the variation of
scanners and patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from training.detection.crops import HIGH_HU, LOW_HU, ball, ignored

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from training.detection.crops import AxillaCrop

PATCH = 96  # edge, mm
MARGIN = 0.375  # around a patch, of its edge, for rotation and scaling
FAT_BYTE = round((-100 - LOW_HU) / (HIGH_HU - LOW_HU) * 255)
STRUCTURE_MM = 3.0
STRUCTURE_WEIGHT = 4
PLACES = 4000  # random points of the search region on which patches may be centred


class Kind(StrEnum):
    """The kind of a training axilla."""

    REAL = "real"
    DRAWN = "drawn"  # a real axilla with drawn nodes
    PHANTOM = "phantom"


@dataclass(frozen=True, slots=True)
class Axilla:
    """One training axilla, as bytes.

    Attributes:
        case: the patient; empty for phantoms.
        hu: `LOW_HU` … `HIGH_HU` as 0 … 255.
        ramps: as in `crops.AxillaCrop`.
        depth: 0 outside nodes; inside, from 1 at the surface to 255 at the core.
        weight: of each voxel in the loss: 0 without a certain label, `STRUCTURE_WEIGHT` at structures that are not nodes, else 1.
        targets: (n, 3) centres of nodes.
        traps: (n, 3) centres of structures that are not nodes.
        region: (n, 3) random points of the search region.
        thickness_mm: slice distance of the source.
    """

    case: str
    kind: Kind
    hu: npt.NDArray[np.uint8]
    ramps: npt.NDArray[np.float64]
    depth: npt.NDArray[np.uint8]
    weight: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64]
    traps: npt.NDArray[np.int64]
    region: npt.NDArray[np.int64]
    thickness_mm: float


def axilla(crop: AxillaCrop, hu: npt.NDArray[np.float32], nodes: npt.NDArray[np.integer], kind: Kind) -> Axilla:
    """Return a training axilla from a crop; ``hu`` and ``nodes`` are those of the crop, or those of `axilla_implants.DrawnAxilla`."""
    weight = np.ones(hu.shape, np.uint8)
    for place in crop.structures:
        weight[ball(hu.shape, place, STRUCTURE_MM)] = STRUCTURE_WEIGHT
    weight[ignored(crop)] = 0
    weight[nodes > 0] = 1
    depth, targets = depths(nodes)
    places = np.argwhere(crop.region)
    rng = np.random.default_rng(len(places))
    return Axilla(
        "" if kind is Kind.PHANTOM else crop.case,
        kind,
        np.rint((np.clip(hu, LOW_HU, HIGH_HU) - LOW_HU) * (255 / (HIGH_HU - LOW_HU))).astype(np.uint8),
        crop.ramps,
        depth,
        weight,
        targets,
        np.rint(crop.structures).astype(np.int64),
        places[rng.integers(0, len(places), PLACES)],
        crop.thickness_mm,
    )


def depths(nodes: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the depth of each voxel in its node (0 outside, 1 … 255 at the core), and the centres of the nodes (n, 3)."""
    depth = np.zeros(nodes.shape, np.uint8)
    targets = []
    for number, box in enumerate(ndimage.find_objects(nodes), start=1):
        if box is None:
            continue
        mask = np.pad(nodes[box] == number, 1)
        inside = ndimage.distance_transform_edt(mask)[1:-1, 1:-1, 1:-1]
        mask = mask[1:-1, 1:-1, 1:-1]
        depth[box][mask] = np.rint(1 + 254 * inside[mask] / inside.max()).astype(np.uint8)
        targets.append([s.start + c for s, c in zip(box, ndimage.center_of_mass(mask), strict=True)])
    return depth, np.rint(np.array(targets).reshape(-1, 3)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of n patches with side s.

    Attributes:
        hu: (n, 1, s, s, s) float32 in HU.
        place: (n, 3, s, s, s) position in the chest.
        node, depth: (n, s, s, s) 0 … 1.
        weight: (n, s, s, s) of the voxels in the loss.
    """

    hu: torch.Tensor
    place: torch.Tensor
    node: torch.Tensor
    depth: torch.Tensor
    weight: torch.Tensor


class Store:
    """The training axillae on the device, from which patches are cut.

    Attributes:
        patch: edge of the patches, grid points of 1 mm.
    """

    def __init__(self, axillae: Sequence[Axilla], device: torch.device, patch: int = PATCH) -> None:
        self.axillae = list(axillae)
        self.device = device
        self.patch = patch
        self._bytes = [torch.from_numpy(np.stack([a.hu, a.depth, a.weight])).to(device) for a in axillae]

    def batch(self, chosen: Sequence[int], rng: np.random.Generator) -> Batch:
        """Return one augmented patch of each chosen axilla."""
        patch = self.patch
        edge = patch + 2 * round(patch * MARGIN)
        parts, turns, lines = [], [], []
        for n in chosen:
            a = self.axillae[n]
            corner = _centre(a, patch, rng) - edge // 2
            parts.append(_cut(self._bytes[n], corner, edge))
            lines.append(_moved_ramps(a.ramps, corner, edge, rng))
            turns.append(_rotation(rng) * (patch / edge))
        stacked = torch.stack(parts).float()
        matrix = torch.zeros((len(parts), 3, 4))
        matrix[:, :, :3] = torch.from_numpy(np.stack(turns))
        grid = functional.affine_grid(matrix.to(self.device), [len(parts), 1, patch, patch, patch], align_corners=False)
        smooth = functional.grid_sample(stacked[:, :2], grid, mode="bilinear", align_corners=False)
        weight = functional.grid_sample(stacked[:, 2:], grid, mode="nearest", align_corners=False)[:, 0]
        depth = smooth[:, 1] / 255
        node = (
            functional.grid_sample((stacked[:, 1:2] > 0).float(), grid, mode="bilinear", align_corners=False)[:, 0] > 0.5
        ).float()
        hu = smooth[:, :1] * ((HIGH_HU - LOW_HU) / 255) + LOW_HU
        line = torch.from_numpy(np.stack(lines)).to(self.device)
        place = grid.flip(-1).permute(0, 4, 1, 2, 3) * line[:, :, 1].view(-1, 3, 1, 1, 1) + line[:, :, 0].view(-1, 3, 1, 1, 1)
        return Batch(self._augmented(hu, [self.axillae[n] for n in chosen], rng), place, node, depth * node, weight)

    def _augmented(self, hu: torch.Tensor, sources: Sequence[Axilla], rng: np.random.Generator) -> torch.Tensor:
        """Return the patches as other scanners and protocols would show them: slice thickness, kernel, noise, calibration."""
        count = len(hu)
        along = np.stack([_thickness_matrix(rng, a.thickness_mm, self.patch) for a in sources])
        hu = torch.einsum("nij,ncjyx->nciyx", torch.from_numpy(along).to(self.device), hu)
        sharp = torch.from_numpy(rng.uniform(-0.8, 0.9, count) * (rng.random(count) < 0.7)).float().to(self.device)
        blurred = functional.avg_pool3d(functional.pad(hu, (1, 1, 1, 1, 0, 0), mode="replicate"), (1, 3, 3), stride=1)
        hu = hu + sharp.view(-1, 1, 1, 1, 1) * (hu - blurred)
        seed = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(hu.shape, generator=seed, device=self.device)
        grain = functional.avg_pool3d(noise, 3, stride=1, padding=1) * 4
        mixed = torch.from_numpy(rng.random(count)).float().to(self.device).view(-1, 1, 1, 1, 1)
        level = torch.from_numpy(rng.uniform(0, 22, count) * (rng.random(count) < 0.7)).float().to(self.device)
        hu = hu + level.view(-1, 1, 1, 1, 1) * (mixed * noise + (1 - mixed) * grain)
        gain = torch.from_numpy(rng.normal(1, 0.06, count)).float().to(self.device).view(-1, 1, 1, 1, 1)
        shift = torch.from_numpy(rng.normal(0, 8, count)).float().to(self.device).view(-1, 1, 1, 1, 1)
        return hu * gain + shift


def _centre(a: Axilla, patch: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return a random centre: near a node in half of the patches, near a structure in some, else in the search region."""
    kind = rng.random()
    places = a.targets if kind < 0.5 and len(a.targets) else a.traps if kind < 0.7 and len(a.traps) else a.region
    moved: npt.NDArray[np.int64] = places[rng.integers(len(places))] + rng.integers(-patch // 4, patch // 4 + 1, 3)
    return moved


def _moved_ramps(
    ramps: npt.NDArray[np.float64], corner: npt.NDArray[np.int64], edge: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return the ramps over -1 … 1 of a cut, with the random variation of chests and landmarks."""
    middle = ramps[:, 0] + ramps[:, 1] * (corner + (edge - 1) / 2)
    moved = middle * rng.normal(1, 0.05, 3) + rng.normal(0, [0.12, 0.05, 0.05])
    lines: npt.NDArray[np.float32] = np.stack([moved, ramps[:, 1] * edge / 2], axis=1).astype(np.float32)
    return lines


def _cut(stored: torch.Tensor, corner: npt.NDArray[np.int64], edge: int) -> torch.Tensor:
    """Return (3, edge, edge, edge) bytes from ``corner`` on; outside the crop, fat of weight 0."""
    cut = torch.zeros((3, edge, edge, edge), dtype=torch.uint8, device=stored.device)
    cut[0] = FAT_BYTE
    low = [max(0, int(c)) for c in corner]
    high = [min(n, int(c) + edge) for c, n in zip(corner, stored.shape[1:], strict=True)]
    if all(b > a for a, b in zip(low, high, strict=True)):
        to = tuple(slice(a - int(c), b - int(c)) for a, b, c in zip(low, high, corner, strict=True))
        cut[(slice(None), *to)] = stored[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
    return cut


def _rotation(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a random matrix (x, y, z) that rotates and scales; patches are never upside down or back to front."""
    a, b, c = rng.normal(0, [0.25, 0.15, 0.15]).clip(-0.5, 0.5)  # around z, y, x; rad
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    scale = rng.uniform(0.8, 1.25) * rng.uniform(0.93, 1.07, 3)
    matrix: npt.NDArray[np.float32] = (about_z @ about_y @ about_x @ np.diag(scale)).astype(np.float32)
    return matrix


def _thickness_matrix(rng: np.random.Generator, thickness_mm: float, patch: int) -> npt.NDArray[np.float32]:
    """Return a random matrix (patch, patch) that averages along z to slices of up to 5.5 mm and interpolates linearly between them."""
    same: npt.NDArray[np.float32] = np.eye(patch, dtype=np.float32)
    wanted = rng.uniform(1.0, 5.5)
    if wanted < 1.3 * thickness_mm or rng.random() < 0.4:
        return same
    first = rng.uniform(0, wanted)
    middles = np.arange(first - wanted, patch + wanted, wanted)
    points = np.arange(patch)
    share = np.clip((wanted + 1) / 2 - np.abs(points[None] - middles[:, None]), 0, 1)
    share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-6)
    filled = share.sum(axis=1) > 0.5
    middles, share = middles[filled], share[filled]
    between = np.clip(1 - np.abs(points[:, None] - middles[None]) / wanted, 0, 1)
    between /= np.maximum(between.sum(axis=1, keepdims=True), 1e-6)
    matrix: npt.NDArray[np.float32] = (between @ share).astype(np.float32)
    return matrix
