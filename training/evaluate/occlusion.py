"""Occlusion maps (Zeiler & Fergus, ECCV 2014): how much the logit changes when a part of the crop is hidden.

They need no gradient and no layer, so they check what Grad-CAM says about the places that a network uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    import numpy.typing as npt

    Maps = npt.NDArray[np.float32]

PLACES: Final = 8  # hidden squares along each axis
WIDTH: Final = 1.5  # side of a square as a multiple of their distance, so that neighbours overlap
BLUR: Final = 4  # the hidden square shows the mean over a BLUR-th of the crop's side, so that hiding adds no edge of its own


@torch.inference_mode()
def occlusion_maps(network: torch.nn.Module, crops: npt.NDArray[np.uint8]) -> Maps:
    """Return (N, S, S): the mean absolute change of the logit over all hidden squares that cover a pixel.

    Args:
        network: returns one logit for each crop.
        crops: (N, C, S, S) in bytes.
    """
    device = next(network.parameters()).device
    side = crops.shape[-1]
    squares = _squares(side).to(device)  # (P, S, S)
    cover = squares.sum(0).clamp(min=1)
    found = []
    for crop in crops:
        shown = torch.from_numpy(crop).float().div(255).to(device)
        reach = side // BLUR // 2
        padded = functional.pad(shown[None], (reach,) * 4, mode="replicate")
        hidden = functional.avg_pool2d(padded, 2 * reach + 1, stride=1)[0]
        batch = torch.where(squares[:, None], hidden, shown)
        changed = (network(batch).float() - network(shown[None]).float()).abs().squeeze(1)
        found.append(((changed[:, None, None] * squares).sum(0) / cover).cpu().numpy())
    return np.stack(found).astype(np.float32)


def _squares(side: int) -> torch.Tensor:
    """Return the masks of the hidden squares, (PLACES², side, side)."""
    step = side / PLACES
    half = WIDTH * step / 2
    centres = (np.arange(PLACES) + 0.5) * step
    pixels = np.arange(side) + 0.5
    bands = np.abs(pixels[None] - centres[:, None]) <= half  # (PLACES, side)
    masks = bands[:, None, :, None] & bands[None, :, None, :]
    return torch.from_numpy(masks.reshape(-1, side, side))
