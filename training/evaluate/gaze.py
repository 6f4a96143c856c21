"""Grad-CAM of a bundle's networks on phantoms, counted by region and beside weights drawn anew."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from alnnode import phantom
from alnnode.imaging.crop import asc_geometry, fsc_geometry
from alnnode.records import Crop
from training.data import regions
from training.data.cohort import as_volume, join, of_phantom
from training.evaluate import cam
from training.fit.member import images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt
    import torch

    from training.data.cohort import Cohort, Source
    from training.evaluate.cam import Shares


def look(
    source: Source, patients: int, models: Mapping[Crop, torch.nn.Module], progress: Callable[[], None]
) -> tuple[dict[str, Shares], dict[str, float]]:
    """Return the shares of each network and of the same with weights drawn anew, and how alike their maps are."""
    crops = []
    places: dict[Crop, list[npt.NDArray[np.intp]]] = {crop: [] for crop in Crop}
    for index in range(patients):
        made = phantom.make_patient(source.seed, index, source.phantoms)
        volume = as_volume(made)
        crops.append(of_phantom(source, made))
        for node in made.nodes:
            plane = made.labels[node.slice_index] == node.number
            for crop, geometry_of in ((Crop.FSC, fsc_geometry), (Crop.ASC, asc_geometry)):
                geometry = geometry_of(volume, node.box, node.slice_index, source.crops)
                pixel_mm = abs(geometry.step_row) * volume.spacing[1]
                places[crop].append(regions.regions(regions.on_crop(plane, geometry), pixel_mm))
        progress()
    return count(join(crops), {crop: np.stack(found) for crop, found in places.items()}, models)


def count(
    cohort: Cohort, places: Mapping[Crop, npt.NDArray[Any]], models: Mapping[Crop, torch.nn.Module]
) -> tuple[dict[str, Shares], dict[str, float]]:
    """Return the same of a cohort whose regions (N, S, S) on each crop are known."""
    shares, alike = {}, {}
    for crop, model in models.items():
        pictures = images(cohort, crop)[:, 0]
        found = cam.maps(model, pictures)
        anew = deepcopy(model)
        cam.randomised(anew)
        drawn = cam.maps(anew, pictures)
        name = crop.value.upper()
        shares[name] = cam.energy(found, places[crop])
        shares[f"{name}, weights drawn anew"] = cam.energy(drawn, places[crop])
        alike[name] = cam.likeness(found, drawn)
    return shares, alike
