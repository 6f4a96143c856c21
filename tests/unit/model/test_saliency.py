"""Grad-CAM shows what it says: the weighted sum of the last feature map, on the crop's own pixels."""

import sys
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from bundles import write_bundle

from alnnode.model import bundle, network, saliency
from alnnode.model.ensemble import Ensemble
from alnnode.records import LEAST_RAISED, Crop, CropGeometry, CropPair


def test_a_map_is_the_weighted_sum_of_the_last_feature_map(tmp_path: Path) -> None:
    ensemble = Ensemble(bundle.load(write_bundle(tmp_path)), "cpu")
    model = ensemble.members[Crop.FSC]
    model.get_submodule("class_layers.out").weight.data *= 100
    rng = np.random.default_rng(2)
    geometry = CropGeometry(Crop.FSC, 0, 0.0, 0.0, 1.0, 1.0, 64)
    pair = CropPair(rng.random((1, 64, 64), np.float32), rng.random((1, 64, 64), np.float32), geometry, geometry)
    kept: list[torch.Tensor] = []
    hook = network.target_layer(model).register_forward_hook(lambda _module, _input, output: kept.append(output))
    model(torch.from_numpy(pair.fsc)[None])
    hook.remove()
    # Where only pooling and a linear layer follow, Grad-CAM is the class activation map (Selvaraju et al., section 3.1).
    weights = model.get_submodule("class_layers.out").weight[0]
    expected = torch.relu(torch.einsum("c,cvu->vu", weights, kept[0][0])).detach().numpy()
    assert expected.max() > 0
    expected = cv2.resize((expected - expected.min()) / (expected.max() - expected.min()), (64, 64))
    found = saliency.explain(ensemble, [pair])[0][0].values
    np.testing.assert_allclose(found, expected / expected.max(), atol=2e-3)


def test_a_crop_without_anything_for_metastasis_has_an_empty_map(tmp_path: Path) -> None:
    ensemble = Ensemble(bundle.load(write_bundle(tmp_path)), "cpu")
    for model in ensemble.members.values():
        # Every feature now speaks against metastasis.
        model.get_submodule("class_layers.out").weight.data.abs_().neg_()
    geometry = CropGeometry(Crop.FSC, 0, 0.0, 0.0, 1.0, 1.0, 64)
    picture = np.random.default_rng(1).random((1, 64, 64), np.float32)
    for heatmap in saliency.explain(ensemble, [CropPair(picture, picture, geometry, geometry)])[0]:
        assert not heatmap.values.any()


def test_a_negligible_rise_is_not_scaled_up_to_a_finding(tmp_path: Path) -> None:
    ensemble = Ensemble(bundle.load(write_bundle(tmp_path)), "cpu")
    geometry = CropGeometry(Crop.FSC, 0, 0.0, 0.0, 1.0, 1.0, 64)
    picture = np.random.default_rng(1).random((1, 64, 64), np.float32)
    crops = [CropPair(picture, picture, geometry, geometry)]
    # What all areas together add to the logit, beside the least that a map shows.
    least = 4 * LEAST_RAISED * ensemble.temperature
    for share, empty in ((0.9, True), (1.1, False)):
        for crop, model in ensemble.members.items():
            out = model.get_submodule("class_layers.out")
            out.weight.data.abs_()
            with torch.no_grad():
                rise = float((model(torch.from_numpy(picture)[None]) - out.bias).item())
            out.weight.data *= share * least / rise
            (pair,) = saliency.explain(ensemble, crops)
            heatmap = next(one for one in pair if one.crop is crop)
            assert heatmap.empty is empty
            assert float(heatmap.values.max()) == (0.0 if empty else 1.0)


def test_a_rise_that_hardly_changes_the_probability_is_no_finding(tmp_path: Path) -> None:
    """A logit of -12 that was raised by 1: the probability is 0.00001 with and without the areas."""
    ensemble = Ensemble(bundle.load(write_bundle(tmp_path)), "cpu")
    geometry = CropGeometry(Crop.FSC, 0, 0.0, 0.0, 1.0, 1.0, 64)
    picture = np.random.default_rng(1).random((1, 64, 64), np.float32)
    for bias, empty in ((-12.0, True), (0.0, False)):
        for model in ensemble.members.values():
            out = model.get_submodule("class_layers.out")
            out.weight.data.abs_()
            with torch.no_grad():
                out.weight.data *= ensemble.temperature / float((model(torch.from_numpy(picture)[None]) - out.bias).item())
                out.bias.data.fill_(bias * ensemble.temperature)
        (pair,) = saliency.explain(ensemble, [CropPair(picture, picture, geometry, geometry)])
        assert [heatmap.empty for heatmap in pair] == [empty, empty]
