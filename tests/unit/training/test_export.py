"""Export of bundles: they load, are reproducible, and state the origin of their metrics."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).parents[2]))
from bundles import write_bundle

from alnnode.errors import BundleError
from alnnode.imaging.crop import CropSettings
from alnnode.model import bundle, network
from alnnode.model.weights import load_tensors
from alnnode.records import Crop, Interval
from training.evaluate.bundle_metrics import BundleMetrics
from training.fit import bundle_contents
from training.networks import build, inference, onnx_export
from training.report import bundle_export

FIGURE = Interval(0.9, 0.8, 0.95)
FIGURES = BundleMetrics(40, 20, 5, {"ensemble": FIGURE, "short axis alone": FIGURE}, 0.31, FIGURE, FIGURE, FIGURE, 0.04, 0.1)


def made(detector: bundle_contents.DetectorFiles | None = None) -> bundle_contents.BundleContents:
    torch.manual_seed(0)
    members = {crop: inference.half_precision(network.build(3, 8).state_dict()) for crop in Crop}
    words = {"training_data": "synthetic phantoms only: 9 nodes", "test_set": "held-out synthetic phantoms, n = 40 nodes"}
    return bundle_contents.BundleContents(
        "t", "1", demonstration=True, crops=CropSettings(), output_stride=8, architectures=dict.fromkeys(Crop, "densenet121"), members=members, temperature=1.5, prevalence=0.3, figures=FIGURES,
        detector=detector, command="python -m training demo --seed 3", provenance={"seed": 3}, **words,
    )  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    bundle_export.write_bundle(made(), folder)
    return folder


def test_what_is_exported_loads_with_its_identity(exported: Path) -> None:
    loaded = bundle.load(exported)
    assert loaded.identity.demonstration
    assert loaded.identity.operating_point.threshold == 0.31
    assert loaded.identity.operating_point.data_set == "held-out synthetic phantoms, n = 40 nodes"
    assert loaded.crop_settings == CropSettings()
    assert {tensor.dtype for tensor in load_tensors(loaded, "fsc").values()} == {torch.float16, torch.int64}
    card = (exported / "model-card.md").read_text()
    assert "not for clinical use" in card
    assert "python -m training demo --seed 3" in card
    assert "| AUROC, short axis alone | 0.900 | 0.800 to 0.950 |" in card
    assert "fitted on validation, where 30% of the nodes are malignant" in card


def test_the_same_export_is_the_same_bundle(exported: Path, tmp_path: Path) -> None:
    assert bundle_export.write_bundle(made(), tmp_path) == bundle.load(exported).digest
    for path in exported.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_a_bundle_is_declared_validated_on_patients_and_a_demonstration_is_not(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="a demonstration bundle cannot say"):
        bundle_export.declare_validated(bundle.load(exported), "patients of two hospitals", tmp_path / "no")
    bundle_export.write_bundle(replace(made(), demonstration=False), tmp_path / "own")
    before = bundle.load(tmp_path / "own")
    digest = bundle_export.declare_validated(before, "patients of two hospitals, n = 310 nodes", tmp_path / "validated")
    after = bundle.load(tmp_path / "validated")
    assert digest == after.digest != before.digest
    assert after.identity.validated_on == "patients of two hospitals, n = 310 nodes"
    assert after.contents == before.contents
    with pytest.raises(BundleError, match="at least 1 character"):
        bundle_export.declare_validated(before, "", tmp_path / "no")


def test_attaching_a_detector_makes_another_bundle(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    before = bundle.load(folder)
    digest = bundle_export.attach_detector(before, (save({"w": torch.ones(2)}), {"patch": 32}), tmp_path / "with")
    after = bundle.load(tmp_path / "with")
    assert digest == after.digest != before.digest
    assert after.detector_settings == {"patch": 32}
    assert load_tensors(after, "detector")["w"].tolist() == [1.0, 1.0]
    assert json.loads((tmp_path / "with" / "manifest.json").read_text())["temperature"] == before.manifest.temperature
    assert after.contents["fsc.safetensors"] == before.contents["fsc.safetensors"]


def test_the_metrics_of_a_detector_are_in_the_card_once(exported: Path, tmp_path: Path) -> None:
    figures = {
        "volumes": 3, "seed": 42, "surroundings": "plain", "nodes": 20, "threshold": 0.4, "false_positives_per_volume": 0.33, "sensitivity": [0.9, 0.8, 1.0],
        "sensitivity_at_rate": {"1": [0.95, 0.9, 1.0]}, "bands": {}, "told_apart": [8, 10], "median_dice": 0.8, "median_distance_mm": 0.5,
        "median_short_axis_error_mm": 0.4, "side_right": [18, 18], "level_right": [17, 18],
    }  # fmt: skip
    detector = (save({"w": torch.ones(2)}), {"patch": 32})
    bundle_export.attach_detector(bundle.load(exported), detector, tmp_path / "once", figures)
    # The card of a bundle that is written with these metrics is the same.
    direct = bundle_export.write_bundle(made(detector), tmp_path / "direct", figures)
    assert direct == bundle.load(tmp_path / "once").digest
    bundle_export.attach_detector(bundle.load(tmp_path / "once"), detector, tmp_path / "twice", figures | {"seed": 43})
    before, after = ((folder / "model-card.md").read_text() for folder in (exported, tmp_path / "twice"))
    assert "3 phantoms of seed 43" in after
    assert "seed 42" not in after
    assert "| sensitivity (short axis ≥ 5 mm) at ≤ 1 false positives per volume | 0.950 | 0.900 to 1.000 |" in after
    assert "| touching pairs told apart (8 of 10) | 0.800 |" in after
    assert after.startswith(before.split("## Limits")[0])
    assert after.endswith(before.split("## Limits")[1])


def test_weights_that_are_no_numbers_or_do_not_fit_are_refused() -> None:
    weights = dict(network.build(1, 32).state_dict())
    with pytest.raises(BundleError, match="do not fit"):
        network.restore(2, 32, weights)
    weights["class_layers.out.bias"] = torch.tensor([float("nan")])
    with pytest.raises(BundleError, match="finite"):
        network.restore(1, 32, weights)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_last_feature_map_has_the_stride(stride: int) -> None:
    model = network.restore(1, stride, network.build(1, stride).state_dict())
    shapes = []
    network.target_layer(model).register_forward_hook(lambda _module, _input, output: shapes.append(output.shape[-2:]))
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 1)
    assert shapes == [(64 // stride, 64 // stride)]


def test_another_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="output_stride"):
        network.build(1, 4)


def test_onnx_gives_the_logits_of_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(1)
    small = {crop: inference.half_precision(network.build(1, 32, "resnet18").state_dict()) for crop in Crop}
    crops = CropSettings(pixels=32, windows=((40.0, 400.0),))
    one = replace(made(), members=small, crops=crops, output_stride=32, architectures=dict.fromkeys(Crop, "resnet18"))
    bundle_export.write_bundle(one, tmp_path / "bundle")
    loaded = bundle.load(tmp_path / "bundle")
    onnx_export.export_onnx(loaded, tmp_path / "onnx")
    told = json.loads((tmp_path / "onnx" / "bundle.json").read_text())
    assert (told["bundle"], told["temperature"], told["crops"]["pixels"]) == (loaded.digest, 1.5, 32)
    picture = torch.from_numpy(np.random.default_rng(3).random((5, 1, 32, 32), np.float32))
    models = build.networks_of_bundle(loaded)
    for crop, model in models.items():
        session = onnxruntime.InferenceSession(tmp_path / "onnx" / told["networks"][crop.value])
        found = session.run(["logit"], {"crops": picture.numpy()})[0]
        np.testing.assert_allclose(found, model(picture).detach().numpy(), atol=1e-3)
    # The check detects other weights.
    assert onnx_export.max_logit_difference(tmp_path / "onnx" / "fsc.onnx", models[Crop.ASC], picture) > onnx_export.TOLERANCE
