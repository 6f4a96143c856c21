"""Grad-CAM energy of a bundle's networks by region, on phantoms or a cohort, compared with randomised weights."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alnnode import phantom
from alnnode.imaging.crop import asc_geometry, fsc_geometry
from alnnode.records import Crop
from training.data import regions
from training.data.cohort import as_volume, cohort_of_phantom, join_cohorts
from training.evaluate import grad_cam, occlusion
from training.networks.inference import crops_of_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt
    import torch

    from training.data.cohort import Cohort, PhantomSource
    from training.evaluate.grad_cam import CamEnergy

OCCLUDED: Final = 40  # nodes whose occlusion maps are computed: each needs as many passes as there are hidden squares


def cam_energy_of_phantoms(
    source: PhantomSource, patients: int, models: Mapping[Crop, torch.nn.Module], progress: Callable[[], None]
) -> tuple[dict[str, CamEnergy], dict[str, float]]:
    """Return the result of `cam_energy_of_cohort` on ``patients`` phantoms."""
    crops = []
    places: dict[Crop, list[npt.NDArray[np.intp]]] = {crop: [] for crop in Crop}
    for index in range(patients):
        made = phantom.make_patient(source.seed, index, source.phantoms)
        volume = as_volume(made)
        crops.append(cohort_of_phantom(source, made))
        for node in made.nodes:
            plane = made.labels[node.slice_index] == node.number
            for crop, geometry_of in ((Crop.FSC, fsc_geometry), (Crop.ASC, asc_geometry)):
                geometry = geometry_of(volume, node.box, node.slice_index, source.crops)
                pixel_mm = abs(geometry.step_row) * volume.spacing[1]
                places[crop].append(regions.region_of_pixels(regions.mask_on_crop(plane, geometry), pixel_mm))
        progress()
    return cam_energy_of_cohort(join_cohorts(crops), {crop: np.stack(found) for crop, found in places.items()}, models)


def cam_energy_of_cohort(
    cohort: Cohort, places: Mapping[Crop, npt.NDArray[Any]], models: Mapping[Crop, torch.nn.Module]
) -> tuple[dict[str, CamEnergy], dict[str, float]]:
    """Return the energy of each network's maps, and the correlation of its Grad-CAM with that of randomised weights.

    Maps are Grad-CAM with trained and with randomised weights, and occlusion on up to `OCCLUDED` nodes, spread over the cohort.

    Args:
        cohort: the nodes.
        places: the regions (N, S, S) on each kind of crop, as `training.data.regions.region_of_pixels` gives them.
        models: the networks.
    """
    energy, correlation = {}, {}
    for crop, model in models.items():
        pictures = crops_of_kind(cohort, crop)[:, 0]
        trained = grad_cam.grad_cam_maps(model, pictures)
        copied = deepcopy(model)
        grad_cam.randomise_weights(copied)
        randomised = grad_cam.grad_cam_maps(copied, pictures)
        name = crop.value.upper()
        energy[name] = grad_cam.energy_by_region(trained, places[crop], cohort.patient)
        energy[f"{name}, randomised weights"] = grad_cam.energy_by_region(randomised, places[crop], cohort.patient)
        few = np.unique(np.linspace(0, len(cohort) - 1, min(OCCLUDED, len(cohort))).astype(int))
        hidden = occlusion.occlusion_maps(model, pictures[few])
        energy[f"{name}, occlusion"] = grad_cam.energy_by_region(hidden, places[crop][few], cohort.patient[few])
        correlation[name] = grad_cam.map_correlation(trained, randomised)
    return energy, correlation
