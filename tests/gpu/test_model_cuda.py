"""On a CUDA device: results repeat, do not depend on the batch, and agree with the processor's."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from bundles import write_bundle

from alnnode.model import bundle, saliency
from alnnode.model.ensemble import Ensemble
from alnnode.records import Crop, CropGeometry, CropPair

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE: the GPU path was not tested"),
]


@pytest.fixture(scope="module")
def crops() -> list[CropPair]:
    rng = np.random.default_rng(5)
    geometry = CropGeometry(Crop.FSC, 0, 0.0, 0.0, 1.0, 1.0, 64)
    return [CropPair(*(rng.random((1, 64, 64), np.float32) for _ in range(2)), geometry, geometry) for _ in range(19)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def test_predictions_repeat_and_agree_with_the_processor(folder: Path, crops) -> None:
    loaded = bundle.load(folder)
    found = Ensemble(loaded, "cuda").predict(crops)
    assert found == Ensemble(loaded, "cuda").predict(crops)
    for ours, theirs in zip(found, Ensemble(loaded, "cpu").predict(crops), strict=True):
        assert ours.probability == pytest.approx(theirs.probability, abs=0.02)  # bfloat16 has three digits


def test_heatmaps_repeat(folder: Path, crops) -> None:
    ensemble = Ensemble(bundle.load(folder), "cuda")
    for ours, theirs in zip(saliency.explain(ensemble, crops), saliency.explain(ensemble, crops), strict=True):
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one.values, two.values)
