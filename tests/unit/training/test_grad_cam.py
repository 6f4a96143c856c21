"""Grad-CAM energy: shares add up to 1, masks lie on the node of the crop, and randomised weights give other maps."""

import numpy as np
import pytest
import torch

from alnnode import phantom
from alnnode.imaging.crop import CropSettings, asc_geometry, crop_box, fsc_geometry
from alnnode.model import network
from alnnode.phantom import PhantomSettings, Position
from training.data import regions
from training.data.cohort import as_volume
from training.evaluate import grad_cam, occlusion

ONE = np.array(["a"])


def disc(radius: float, size: int = 64) -> np.ndarray:
    v, u = np.mgrid[:size, :size] - (size - 1) / 2
    return v**2 + u**2 < radius**2


def test_energy_is_counted_in_its_region() -> None:
    places = regions.region_of_pixels(disc(10), pixel_mm=0.75)[None]
    assert [int((places == n).sum()) > 0 for n in range(4)] == [True] * 4
    for number, name in enumerate(regions.REGIONS):
        found = grad_cam.energy_by_region((places == number).astype(np.float32), places, ONE)
        assert found.share[name].value == pytest.approx(1)
        assert found.density[name] == pytest.approx(1 / (places == number).mean())
    even = grad_cam.energy_by_region(np.ones((1, 64, 64), np.float32), places, ONE)
    assert sum(share.value for share in even.share.values()) == pytest.approx(1)
    assert list(even.density.values()) == pytest.approx([1] * 4)
    assert grad_cam.energy_by_region(np.zeros((1, 64, 64), np.float32), places, ONE).nodes == 0


def test_the_interval_of_a_share_is_that_of_patients_not_of_nodes() -> None:
    places = np.repeat(regions.region_of_pixels(disc(10), pixel_mm=0.75)[None], 40, 0)
    inside = np.arange(40) < 20  # half of the maps lie in the node, half around it
    maps = np.where(inside[:, None, None], places == 0, places == 2).astype(np.float32)
    alone, pairs = np.arange(40).astype(str), np.where(inside, "a", "b")
    apart, together = (grad_cam.energy_by_region(maps, places, names).share["node"] for names in (alone, pairs))
    assert apart.value == together.value == 0.5
    assert apart.low == pytest.approx(0.35, abs=0.05)
    assert apart.high == pytest.approx(0.65, abs=0.05)
    assert (together.low, together.high) == (0.0, 1.0)


class Corner(torch.nn.Module):
    """A network that looks at one corner only."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return crops[:, 0, :16, :16].mean((1, 2))[:, None] * self.scale


def test_occlusion_finds_the_place_that_a_network_uses() -> None:
    crops = np.random.default_rng(1).integers(0, 255, (3, 2, 64, 64), np.uint8)
    crops[:, 0, :16, :16] //= 4
    found = occlusion.occlusion_maps(Corner(), crops)
    assert found.shape == (3, 64, 64)
    assert not found[:, 32:].any()
    assert not found[:, :, 32:].any()
    assert (found[:, :12, :12] > 0).all()
    flat = np.full((1, 2, 64, 64), 90, np.uint8)
    np.testing.assert_allclose(occlusion.occlusion_maps(Corner(), flat), 0, atol=1e-6)


def test_the_margin_has_its_width_on_both_sides() -> None:
    row = regions.region_of_pixels(disc(12), pixel_mm=0.5)[32, 32:]
    margin = np.flatnonzero(row == regions.REGIONS.index("margin"))
    assert abs(len(margin) * 0.5 - 2 * regions.MARGIN_MM) <= 1
    assert abs(margin.mean() - 11.5) <= 1


@pytest.mark.parametrize("position", [Position.HFS, Position.HFP])
def test_the_mask_lies_on_the_crop_where_the_node_lies(position) -> None:
    settings = PhantomSettings(min_nodes_per_side=1, max_nodes_per_side=2, slices=(20, 20), position=position, noise_hu=0)
    made, crops = phantom.make_patient(4, 0, settings), CropSettings()
    volume = as_volume(made)
    node = max(made.nodes, key=lambda n: n.short_axis_mm)
    plane = made.labels[node.slice_index] == node.number
    for geometry in (
        fsc_geometry(volume, node.box, node.slice_index, crops),
        asc_geometry(volume, node.box, node.slice_index, crops),
    ):
        seen = regions.mask_on_crop(plane, geometry)
        centre = np.argwhere(seen).mean(0)
        assert abs(centre - (crops.pixels - 1) / 2).max() < crops.pixels * 0.12
    pair = crop_box(volume, node.box, node.slice_index, crops)
    seen = regions.mask_on_crop(plane, pair.asc_geometry)
    assert pair.asc[0][seen].mean() > pair.asc[0][~seen].mean()  # a node is brighter than fat


def test_randomised_weights_give_other_maps() -> None:
    torch.manual_seed(0)
    model = network.restore(1, 8, network.build(1, 8, "resnet18").state_dict(), "resnet18")
    crops = np.random.default_rng(0).integers(0, 255, (3, 1, 64, 64), np.uint8)
    before = grad_cam.grad_cam_maps(model, crops)
    assert before.shape == (3, 64, 64)
    assert grad_cam.map_correlation(before, grad_cam.grad_cam_maps(model, crops)) == pytest.approx(1)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grad_cam.randomise_weights(model, seed=1)
    assert all(not torch.equal(weights[name], model.state_dict()[name]) for name in weights if name.endswith("conv1.weight"))
    assert abs(grad_cam.map_correlation(before, grad_cam.grad_cam_maps(model, crops))) < 0.6
