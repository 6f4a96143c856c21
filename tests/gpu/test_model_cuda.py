"""Results on a CUDA device are reproducible, do not depend on the batch, and agree with those on the CPU."""

import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from analyses import CONTEXT, analysis
from bundles import write_bundle

from alnnode import report
from alnnode.locate import detector as detectors
from alnnode.locate.detector import Detector
from alnnode.locate.grid import Frame
from alnnode.locate.search_grid import SearchGrid
from alnnode.model import bundle, saliency
from alnnode.model.ensemble import Ensemble
from alnnode.records import Crop, CropGeometry, CropPair, Side

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
        assert ours.probability == pytest.approx(theirs.probability, abs=0.02)  # bfloat16 has about three significant digits


def test_the_detector_repeats_and_agrees_with_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "number_format", lambda _: torch.float32)  # the CPU may compute in bfloat16
    loaded = bundle.load(bundle.resolve("demo"))
    rng = np.random.default_rng(4)
    hu = rng.normal(-60, 60, (80, 70, 64)).astype(np.float32)
    frame = Frame(transposed=False, flip_y=False, flip_x=False, spacing=(1.0, 1.0, 1.0))
    everywhere = np.ones(hu.shape, bool)
    grid = SearchGrid(Side.RIGHT, hu, hu, everywhere, ~everywhere, (0, 0, 0), frame, Chest())
    found = Detector.from_bundle(loaded, "cuda").predict(grid).node
    np.testing.assert_array_equal(found, Detector.from_bundle(loaded, "cuda").predict(grid).node)
    np.testing.assert_allclose(found, Detector.from_bundle(loaded, "cpu").predict(grid).node, atol=0.02)


class Chest:
    def ramps(self, start, step, *, left):
        return np.array([[0.4, -0.01], [0.1, 0.02], [0.5, 0.05]])


def test_heatmaps_repeat(folder: Path, crops) -> None:
    ensemble = Ensemble(bundle.load(folder), "cuda")
    for ours, theirs in zip(saliency.explain(ensemble, crops), saliency.explain(ensemble, crops), strict=True):
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one.values, two.values)


def test_results_of_both_devices_share_no_uid_with_two_contents(folder: Path, crops) -> None:
    loaded, contents, kinds = bundle.load(folder), defaultdict(set), set()
    for device in ("cuda", "cpu"):
        ensemble = Ensemble(loaded, device)
        kinds.add(ensemble.arithmetic)
        analysed = analysis(2)
        found = zip(analysed.findings, ensemble.predict(crops[:2]), saliency.explain(ensemble, crops[:2]), strict=True)
        findings = tuple(replace(one, prediction=prediction, heatmaps=maps) for one, prediction, maps in found)
        for item in report.build(replace(analysed, findings=findings), CONTEXT):
            contents[item.sop_instance_uid].add(item.data)
    assert {uid: len(data) for uid, data in contents.items() if len(data) > 1} == {}
    assert len(kinds) == 2, "the device must be part of the result UIDs"


def test_a_node_has_the_same_result_in_every_place_of_a_batch(folder: Path, crops) -> None:
    """The crops of several series share a batch on a GPU, so a result must not depend on its neighbours."""
    ensemble = Ensemble(bundle.load(folder), "cuda")
    alone = [(ensemble.predict([one])[0], saliency.explain(ensemble, [one])[0]) for one in crops]
    order = list(reversed(range(len(crops))))
    mixed = [crops[n] for n in order]
    for n, prediction, maps in zip(order, ensemble.predict(mixed), saliency.explain(ensemble, mixed), strict=True):
        assert prediction == alone[n][0]
        for ours, theirs in zip(maps, alone[n][1], strict=True):
            np.testing.assert_array_equal(ours.values, theirs.values)


def test_less_memory_halves_the_batch_and_the_arithmetic_says_so(folder: Path, crops) -> None:
    ensemble = Ensemble(bundle.load(folder), "cuda")
    before, arithmetic = ensemble.predict(crops), ensemble.arithmetic

    def refuse(_network, arguments) -> None:
        if len(arguments[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    for network in ensemble.members.values():
        network.register_forward_pre_hook(refuse)
    for ours, theirs in zip(ensemble.predict(crops), before, strict=True):
        assert ours.probability == pytest.approx(theirs.probability, abs=0.02)
    assert ensemble.batch == 2
    assert ensemble.arithmetic == arithmetic + ", batch 2"
