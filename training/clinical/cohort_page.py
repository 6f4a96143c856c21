"""The content of the HTML page about a bundle on a hospital's nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alnnode.records import Crop
from training.clinical import node_crops
from training.evaluate import cam_energy
from training.fit.protocol import SHORT_AXIS
from training.networks.inference import mean_probability, predict_logits, stack_logits
from training.report import page

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from alnnode.model.bundle import Bundle
    from training.clinical.node_crops import NodeCrops


def evaluation_page(
    loaded: Bundle, models: Mapping[Crop, torch.nn.Module], nodes: NodeCrops, title: str, device: str = "cpu"
) -> page.Evaluation:
    """Return the content of the page about a bundle, whose networks are ``models``, on a hospital's nodes."""
    logits = {crop: predict_logits(model, nodes.cohort, crop, device) for crop, model in models.items()}
    probability = mean_probability(stack_logits(logits), loaded.manifest.temperature)
    places = {crop: nodes.regions[:, n] for n, crop in enumerate(node_crops.CROPS)}
    energy, correlation = cam_energy.cam_energy_of_cohort(nodes.cohort, places, models)
    others: dict[str, Any] = {crop.value.upper(): logits[crop] for crop in Crop} | {SHORT_AXIS: nodes.cohort.short_axis}
    return page.Evaluation(
        title=title,
        notice=f"{loaded.identity.banner.capitalize()}. This page shows images of patients: store it only where their images may be stored.",
        cohort=nodes.cohort,
        scores={"ensemble": probability, **others},
        threshold=loaded.identity.operating_point.threshold,
        groups=nodes.groups(),
        cam_energy=energy,
        cam_correlation=correlation,
    )
