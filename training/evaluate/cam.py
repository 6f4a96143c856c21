"""Where a network looks: shares of Grad-CAM energy inside the node, in the ring at its margin, in the fat around, and elsewhere.

Park et al. say from pictures that FSC looks at the node and ASC at its margin and the tissue around; this counts. A heatmap that stays the
same when the weights are drawn anew explains nothing (Adebayo et al., NeurIPS 2018), so the same is counted for such a network, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy import stats

from alnnode.model.network import target_layer
from training.data.regions import REGIONS

if TYPE_CHECKING:
    import numpy.typing as npt

    Maps = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shares:
    """Mean shares of energy by region, of all nodes whose map is not empty; ``density`` is the share over the region's share of the area."""

    share: dict[str, float]
    density: dict[str, float]
    nodes: int


def maps(network: torch.nn.Module, crops: npt.NDArray[np.uint8], batch: int = 16) -> Maps:
    """Return Grad-CAM of the logit of metastasis for crops (N, C, S, S) in bytes: (N, S, S), 0 to 1."""
    found: list[npt.NDArray[Any]] = []
    device = next(network.parameters()).device
    cam = GradCAM(model=network, target_layers=[target_layer(network)])
    # Not as a context manager: its __exit__ swallows IndexError.
    try:
        for start in range(0, len(crops), batch):
            part = torch.from_numpy(crops[start : start + batch]).float().div(255).to(device)
            with torch.enable_grad():
                found.append(cam(input_tensor=part, targets=[ClassifierOutputTarget(0)] * len(part)))
    finally:
        cam.activations_and_grads.release()
        network.zero_grad(set_to_none=True)
    return np.concatenate(found).astype(np.float32)


def energy(found: Maps, places: npt.NDArray[np.intp]) -> Shares:
    """Return the shares of maps (N, S, S) by the regions of their crops (N, S, S)."""
    totals = found.sum((1, 2))
    rows = totals > 0
    if not rows.any():
        return Shares(dict.fromkeys(REGIONS, float("nan")), dict.fromkeys(REGIONS, float("nan")), 0)
    share, density = {}, {}
    for number, name in enumerate(REGIONS):
        here = places[rows] == number
        part = (found[rows] * here).sum((1, 2)) / totals[rows]
        area = here.mean((1, 2))
        share[name] = float(part.mean())
        density[name] = float((part[area > 0] / area[area > 0]).mean()) if (area > 0).any() else float("nan")
    return Shares(share, density, int(rows.sum()))


def randomised(network: torch.nn.Module, seed: int = 0) -> None:
    """Draw the weights of a network anew, all layers."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d):
            module.reset_parameters()


def likeness(one: Maps, other: Maps) -> float:
    """Return the mean rank correlation of maps of the same crops; near 0 where the weights decide what is shown."""
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(one, other, strict=True) if a.std() > 0 and b.std() > 0]
    return float(np.mean([stats.spearmanr(a, b).statistic for a, b in pairs])) if pairs else float("nan")
