"""Grad-CAM of both members (Selvaraju et al., ICCV 2017), with pytorch-grad-cam."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from alnnode.model.ensemble import repeatable
from alnnode.model.network import target_layer
from alnnode.records import Crop, Heatmap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.model.ensemble import Ensemble
    from alnnode.records import CropPair, FloatArray


def explain(ensemble: Ensemble, crops: Sequence[CropPair]) -> list[tuple[Heatmap, Heatmap]]:
    """Return the heatmaps (FSC, ASC) of each node, in order: the areas that raised the logit of metastasis.

    Each map is scaled to its maximum: 1 marks the strongest area of this crop, not a probability. A crop in which no area raised the
    logit has a map of zeros.
    """
    maps = {crop: ensemble.with_memory(partial(_maps, ensemble, crop, crops)) for crop in Crop}
    return [
        (
            Heatmap(Crop.FSC, maps[Crop.FSC][n], pair.fsc_geometry),
            Heatmap(Crop.ASC, maps[Crop.ASC][n], pair.asc_geometry),
        )
        for n, pair in enumerate(crops)
    ]


def _maps(ensemble: Ensemble, crop: Crop, crops: Sequence[CropPair]) -> list[FloatArray]:
    network = ensemble.members[crop]
    found: list[FloatArray] = []
    cam = GradCAM(model=network, target_layers=[target_layer(network)])
    # Not used as a context manager, because its __exit__ suppresses IndexError. The hooks are released in any case.
    try:
        for batch, count in ensemble.batches(crop, crops):
            with repeatable(), torch.enable_grad():
                maps = cam(input_tensor=batch, targets=[ClassifierOutputTarget(0)] * len(batch))
            found.extend(np.round(one, 3).astype(np.float32) for one in maps[:count])
    finally:
        cam.activations_and_grads.release()
        network.zero_grad(set_to_none=True)
    return found
