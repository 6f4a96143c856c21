"""Grad-CAM of a network, its energy by region of the crop, and a check against randomised weights.

Park et al. state from pictures that the FSC network looks at the node and the ASC network at its margin and the tissue around it. This
module measures it. A heatmap that does not change when the weights are randomised explains nothing (Adebayo et al., NeurIPS 2018), so the
same is measured for a network with randomised weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy import stats

from alnnode.model.network import target_layer
from alnnode.records import Interval
from training.data.regions import REGIONS

if TYPE_CHECKING:
    import numpy.typing as npt

    Maps = npt.NDArray[np.float32]


RESAMPLES: Final = 1000


@dataclass(frozen=True, slots=True)
class CamEnergy:
    """Mean share of the energy of maps by region, over the nodes whose map is not empty.

    Attributes:
        share: of the energy, with its 95 % interval (bootstrap over patients).
        density: that share divided by the region's share of the area.
        nodes: number of nodes whose map is not empty.
    """

    share: dict[str, Interval]
    density: dict[str, float]
    nodes: int


def grad_cam_maps(network: torch.nn.Module, crops: npt.NDArray[np.uint8], batch: int = 16) -> Maps:
    """Return Grad-CAM of the logit of metastasis for crops (N, C, S, S) in bytes: (N, S, S), 0 to 1."""
    found: list[npt.NDArray[Any]] = []
    device = next(network.parameters()).device
    cam = GradCAM(model=network, target_layers=[target_layer(network)])
    # GradCAM is not used as a context manager, because its __exit__ swallows IndexError.
    try:
        for start in range(0, len(crops), batch):
            part = torch.from_numpy(crops[start : start + batch]).float().div(255).to(device)
            with torch.enable_grad():
                found.append(cam(input_tensor=part, targets=[ClassifierOutputTarget(0)] * len(part)))
    finally:
        cam.activations_and_grads.release()
        network.zero_grad(set_to_none=True)
    return np.concatenate(found).astype(np.float32)


def energy_by_region(maps: Maps, places: npt.NDArray[np.intp], patients: npt.NDArray[np.str_]) -> CamEnergy:
    """Return the energy of maps (N, S, S) in the regions of their crops (N, S, S); ``patients`` (N,) are the clusters of the intervals."""
    totals = maps.sum((1, 2))
    rows = totals > 0
    if not rows.any():
        nothing = Interval(float("nan"), float("nan"), float("nan"))
        return CamEnergy(dict.fromkeys(REGIONS, nothing), dict.fromkeys(REGIONS, float("nan")), 0)
    share, density = {}, {}
    for number, name in enumerate(REGIONS):
        here = places[rows] == number
        part = (maps[rows] * here).sum((1, 2)) / totals[rows]
        area = here.mean((1, 2))
        share[name] = _mean_by_patient(part, patients[rows])
        density[name] = float((part[area > 0] / area[area > 0]).mean()) if (area > 0).any() else float("nan")
    return CamEnergy(share, density, int(rows.sum()))


def _mean_by_patient(values: npt.NDArray[np.floating[Any]], patients: npt.NDArray[np.str_]) -> Interval:
    """Return the mean over nodes with the percentile interval of a bootstrap over patients."""
    _, cluster = np.unique(patients, return_inverse=True)
    count = int(cluster.max()) + 1
    totals, sizes = np.bincount(cluster, values, count), np.bincount(cluster, minlength=count)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    low, high = np.quantile((drawn @ totals) / (drawn @ sizes), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def randomise_weights(network: torch.nn.Module, seed: int = 0) -> None:
    """Replace the weights of all layers by random ones."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d):
            module.reset_parameters()


def map_correlation(one: Maps, other: Maps) -> float:
    """Return the mean rank correlation of two sets of maps of the same crops; near 0 when the weights decide what a map shows."""
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(one, other, strict=True) if a.std() > 0 and b.std() > 0]
    return float(np.mean([stats.spearmanr(a, b).statistic for a, b in pairs])) if pairs else float("nan")
