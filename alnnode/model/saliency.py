"""Grad-CAM of both members (Selvaraju et al., ICCV 2017), with pytorch-grad-cam."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy.special import expit

from alnnode.model.ensemble import repeatable
from alnnode.model.network import target_layer
from alnnode.records import LEAST_RAISED, Crop, Heatmap

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import numpy.typing as npt

    from alnnode.model.ensemble import Ensemble
    from alnnode.records import CropPair, FloatArray


class _MeasuredCam(GradCAM):  # type: ignore[misc] # pytorch-grad-cam is not typed
    """Grad-CAM that also keeps by how much all areas together raised the logit, which the scaling to the maximum removes.

    Attributes:
        raised: of each crop of the last batch. Behind the target layer of our networks are only pooling and a linear layer: there the map,
            before it is scaled, adds up to the logit without its constant (Selvaraju et al., section 3.1).
    """

    raised: npt.NDArray[np.floating[Any]]

    def get_cam_image(self, *args: Any, **options: Any) -> npt.NDArray[np.floating[Any]]:
        """Return the maps as `GradCAM` does, and measure them."""
        found: npt.NDArray[np.floating[Any]] = super().get_cam_image(*args, **options)
        self.raised = np.maximum(found, 0).sum(axis=(1, 2))
        return found


def explain(ensemble: Ensemble, crops: Sequence[CropPair]) -> list[tuple[Heatmap, Heatmap]]:
    """Return the heatmaps (FSC, ASC) of each node, in order: the areas that raised the logit of metastasis.

    Each map is scaled to its maximum: 1 marks the strongest area of this crop, not a probability. The map is zeros where all areas together
    raised the probability of the network by less than `LEAST_RAISED`: scaled to its maximum, such a map would show noise as a finding.
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
    cam = _MeasuredCam(model=network, target_layers=[target_layer(network)])
    # Not used as a context manager, because its __exit__ suppresses IndexError. The hooks are released in any case.
    try:
        for batch, count in ensemble.batches(crop, crops):
            with repeatable(), torch.enable_grad():
                maps = cam(input_tensor=batch, targets=[ClassifierOutputTarget(0)] * len(batch))
            shown = _raised_probability(cam, ensemble.temperature) >= LEAST_RAISED
            found.extend(
                (np.round(one, 3) if seen else np.zeros_like(one)).astype(np.float32)
                for one, seen in zip(maps[:count], shown, strict=False)
            )
    finally:
        cam.activations_and_grads.release()
        network.zero_grad(set_to_none=True)
    return found


def _raised_probability(cam: _MeasuredCam, temperature: float) -> npt.NDArray[np.floating[Any]]:
    """Return by how much all areas that raised the logit raised the probability of the network, for each crop of the last batch."""
    logits = cam.outputs.detach().cpu().numpy()[:, 0].astype(np.float64)
    raised: npt.NDArray[np.floating[Any]] = expit(logits / temperature) - expit((logits - cam.raised) / temperature)
    return raised
