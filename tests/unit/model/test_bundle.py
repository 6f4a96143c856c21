"""The bundle: verified before use, refused with a reason otherwise."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).parents[2]))
from bundles import write_bundle

from alnnode.errors import BundleError
from alnnode.model import bundle, saliency
from alnnode.model.ensemble import Ensemble, choose_device
from alnnode.model.weights import load_tensors
from alnnode.records import Crop, CropGeometry, CropPair


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def edit(folder: Path, **changes) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def test_a_whole_bundle_loads(folder: Path) -> None:
    loaded = bundle.load(folder)
    assert loaded.identity.demonstration
    assert loaded.identity.digest == loaded.digest
    assert loaded.crop_settings.pixels == 64
    assert {tensor.dtype for tensor in load_tensors(loaded, "fsc").values()} == {torch.float16, torch.int64}


def test_an_altered_file_is_refused(folder: Path) -> None:
    data = bytearray((folder / "asc.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "asc.safetensors").write_bytes(bytes(data))
    with pytest.raises(BundleError, match="asc.safetensors was altered"):
        bundle.load(folder)


def test_only_a_bundle_that_says_so_was_validated_on_patients(folder: Path) -> None:
    assert bundle.load(folder).identity.validated_on == ""
    edit(folder, demonstration=False)
    assert not bundle.load(folder).identity.clinical
    edit(folder, validated_on_patients="held-out patients of two hospitals, n = 310 nodes")
    identity = bundle.load(folder).identity
    assert (identity.validated_on, identity.clinical) == ("held-out patients of two hospitals, n = 310 nodes", True)
    edit(folder, demonstration=True)
    with pytest.raises(BundleError, match="a demonstration bundle cannot say validated_on_patients"):
        bundle.load(folder)


def test_the_digest_covers_the_manifest(folder: Path) -> None:
    before = bundle.load(folder).digest
    edit(folder, version="1")
    assert bundle.load(folder).digest != before


@pytest.mark.parametrize("name", ["weights.pt", "weights.pkl", "stranger.safetensors"])
def test_pickles_and_strangers_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(BundleError, match=name):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"temperature": 0}, "temperature"),
        ({"surprise": 1}, "surprise"),
        ({"model_card": {"file": "../../etc/passwd", "sha256": "0" * 64}}, "model_card.file"),
    ],
)
def test_an_impossible_manifest_is_refused_with_the_key(folder: Path, changes, said: str) -> None:
    edit(folder, **changes)
    with pytest.raises(BundleError, match=said):
        bundle.load(folder)


def test_a_missing_file_and_a_missing_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "fsc.safetensors").unlink()
    with pytest.raises(BundleError, match="fsc.safetensors"):
        bundle.load(folder)
    with pytest.raises(BundleError, match="analysis"):
        bundle.load(tmp_path / "nowhere")


def test_a_bundle_without_detector_says_so(folder: Path) -> None:
    with pytest.raises(BundleError, match="no detector"):
        load_tensors(bundle.load(folder), "detector")


def random_crops(count: int) -> list[CropPair]:
    rng = np.random.default_rng(3)
    geometry = CropGeometry(Crop.FSC, 0, 0.0, 0.0, 1.0, 1.0, 64)
    return [
        CropPair(rng.random((1, 64, 64), np.float32), rng.random((1, 64, 64), np.float32), geometry, geometry)
        for _ in range(count)
    ]


def test_predictions_are_means_repeat_and_do_not_depend_on_the_batch(folder: Path) -> None:
    ensemble = Ensemble(bundle.load(folder), "cpu")
    crops = random_crops(19)
    together = ensemble.predict(crops)
    assert together == ensemble.predict(crops)
    for one, alone in zip(together, (ensemble.predict([pair])[0] for pair in crops), strict=True):
        assert one.probability == pytest.approx(alone.probability, abs=2e-4)
        assert one.probability == pytest.approx(sum(one.members.values()) / 2, abs=1.01e-4)
    assert ensemble.predict([]) == []


def test_heatmaps_repeat_and_leave_no_hooks(folder: Path) -> None:
    ensemble = Ensemble(bundle.load(folder), "cpu")
    crops = random_crops(3)
    first, second = saliency.explain(ensemble, crops), saliency.explain(ensemble, crops)
    assert len(first) == 3
    for ours, theirs in zip(first, second, strict=True):
        assert [one.crop for one in ours] == [Crop.FSC, Crop.ASC]
        for one, two in zip(ours, theirs, strict=True):
            assert one.values.shape == (64, 64)
            assert 0 <= one.values.min() <= one.values.max() <= 1
            np.testing.assert_array_equal(one.values, two.values)
    for member in ensemble.members.values():
        assert not any(module._forward_hooks or module._backward_hooks for module in member.modules())


def test_hooks_are_released_when_the_forward_pass_fails(folder: Path) -> None:
    ensemble = Ensemble(bundle.load(folder), "cpu")
    wrong = [
        CropPair(np.zeros((2, 64, 64), np.float32), np.zeros((2, 64, 64), np.float32), *(random_crops(1)[0].fsc_geometry,) * 2)
    ]
    with pytest.raises(RuntimeError):
        saliency.explain(ensemble, wrong)
    assert not any(module._forward_hooks for module in ensemble.members[Crop.FSC].modules())


def test_cuda_is_refused_where_there_is_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(BundleError, match="device"):
        choose_device("cuda")


def rewritten(folder: Path, name: str, data: bytes) -> Path:
    """Put other bytes under a name, with the digest that they have."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["members"]:
        if entry["file"] == name:
            entry["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def header_of(**tensor) -> bytes:
    """Safetensors that begin with this description of one tensor."""
    text = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **tensor}}).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        (1 << 62).to_bytes(8, "little") + b"{}",  # a header of exabytes
        header_of(shape=[1 << 40, 1 << 20], data_offsets=[0, 4]) + bytes(4),  # a tensor that its data cannot hold
        header_of(data_offsets=[0, 1 << 60]) + bytes(4),
        header_of(data_offsets=[1 << 60, (1 << 60) + 4]) + bytes(4),
        b"\x80\x04\x95" + bytes(100),  # a pickle
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
    ],
    ids=["nothing", "huge header", "huge tensor", "huge data", "far data", "pickle", "deep nesting"],
)
def test_weights_with_the_right_digest_and_impossible_contents_are_refused(folder: Path, data: bytes) -> None:
    loaded = bundle.load(rewritten(folder, "fsc.safetensors", data))
    with pytest.raises(BundleError, match="not a safetensors file"):
        load_tensors(loaded, "fsc")


def test_weights_of_another_network_or_without_a_number_are_refused(folder: Path) -> None:
    sound = load_tensors(bundle.load(folder), "fsc")
    name = next(iter(sound))
    for changed in ({**sound, name: sound[name].repeat(2, 1, 1, 1)}, {**sound, name: sound[name] * float("nan")}, {}):
        with pytest.raises(BundleError):
            Ensemble(bundle.load(rewritten(folder, "fsc.safetensors", save(changed))), "cpu")


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "a/../b.safetensors", "..", "w.safetensors\x00", "w.pt"]
)
def test_files_outside_the_bundle_are_never_opened(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["members"][0]["file"] = name
    edit(folder, members=manifest["members"])
    with pytest.raises(BundleError, match=r"members\.0\.file"):
        bundle.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"a":' * 100_000, "\x00", "{}" * 2])
def test_what_is_no_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="export the bundle"):
        bundle.load(folder)
