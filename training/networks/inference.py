"""Predict with trained networks: logits of one network, probability of an ensemble, weights in half precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alnnode.records import Crop

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from training.data.cohort import Cohort

    Logits = npt.NDArray[np.float64]
    Scores = npt.NDArray[np.floating[Any]]

BATCH = 64  # crops
Weights = dict[str, torch.Tensor]


def crops_of_kind(cohort: Cohort, crop: Crop) -> npt.NDArray[np.uint8]:
    """Return the FSC or ASC crops of a cohort, (N, variants, C, S, S)."""
    return cohort.fsc if crop is Crop.FSC else cohort.asc


@torch.inference_mode()
def predict_logits(model: torch.nn.Module, cohort: Cohort, crop: Crop, device: str = "cpu", variant: int = 0) -> Logits:
    """Return the network's logits (N,) in float32 arithmetic for one variant of each node's box; variant 0 is the true box."""
    model.eval()
    source = crops_of_kind(cohort, crop)[:, variant]
    batches = [
        model((torch.from_numpy(source[start : start + BATCH]).float() / 255).to(device, memory_format=torch.channels_last))
        .squeeze(1)
        .cpu()
        for start in range(0, len(source), BATCH)
    ]
    return torch.cat(batches).double().numpy()


def stack_logits(logits: Mapping[Crop, Scores]) -> Scores:
    """Return the logits of both networks as (members, N), in the order of `Crop`."""
    return np.stack([logits[crop] for crop in Crop])


def mean_probability(logits: Scores, temperature: float) -> npt.NDArray[np.float64]:
    """Return the ensemble's probability (N,) from the logits of its networks (members, N)."""
    return np.asarray((1 / (1 + np.exp(-logits / temperature))).mean(axis=0), dtype=np.float64)


def half_precision(weights: Weights) -> Weights:
    """Return the weights as fp16, the precision in which a bundle stores them and in which they must be evaluated."""
    return {name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous() for name, tensor in weights.items()}
