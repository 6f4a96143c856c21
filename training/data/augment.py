"""Augmentation of crops. FSC crops are not scaled, because the FSC network must see the size of the node."""

from __future__ import annotations

import torch
from torch.nn import functional

from alnnode.records import Crop

ROTATION = 0.35  # radians, at most
SHIFT = 0.06  # of the half side, at most
SCALE = 0.12  # ASC only
BRIGHTNESS, CONTRAST = 0.05, 0.1
NOISE = 0.03  # standard deviation, at most
STILL = 0.25  # share of the crops that are only mirrored


def augment(batch: torch.Tensor, crop: Crop, generator: torch.Generator, numbers: int = 0) -> torch.Tensor:
    """Return the batch (N, C, S, S) with random mirroring, rotation, shift, brightness, contrast and noise.

    Mirroring left to right turns a right axilla into a left one. Mirroring front to back gives no real anatomy, but without it heatmaps
    lean towards the front of the node. Each crop gets its own noise level, which may be 0: with one level for all crops, batch normalisation
    learns the noise as a property of every image and fails on crops without it. For the same reason some crops are neither rotated nor
    shifted: interpolation smooths a crop, and the node classifies crops that are not smoothed.

    The last ``numbers`` channels are no images but one number each. They stay as they are: with the noise of a crop, the attenuation of
    blood without contrast and the 0 of an unknown attenuation would be the same.
    """
    count = len(batch)

    def uniform(reach: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * reach

    moving = (torch.rand(count, generator=generator) >= STILL).float()
    angle, scale = moving * uniform(ROTATION), 1 + moving * (uniform(SCALE) if crop is Crop.ASC else torch.zeros(count))
    mirror, turn = (torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0) for _ in range(2))
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            torch.stack([cosine * mirror, -sine * turn, moving * uniform(SHIFT)], 1),
            torch.stack([sine * mirror, cosine * turn, moving * uniform(SHIFT)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(theta, list(batch.shape), align_corners=False)
    moved = functional.grid_sample(batch, grid, mode="bilinear", padding_mode="border", align_corners=False)
    view = (count, 1, 1, 1)
    lit = (moved - 0.5) * (1 + uniform(CONTRAST)).view(view) + 0.5 + uniform(BRIGHTNESS).view(view)
    noise = torch.rand(count, generator=generator) * NOISE
    noisy = (lit + torch.randn(lit.shape, generator=generator) * noise.view(view)).clamp(0, 1)
    return torch.cat([noisy[:, : lit.shape[1] - numbers], batch[:, lit.shape[1] - numbers :]], 1) if numbers else noisy
