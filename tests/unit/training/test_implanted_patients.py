"""A detector on nodes that are implanted into marked series: the patient's own nodes do not count, and the network is that of the case."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from safetensors.torch import load, save_file
from scipy import ndimage

from alnnode import phantom
from alnnode.errors import AlnnodeError
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.detector import Detector
from alnnode.locate.grid import Frame
from alnnode.locate.measure import measure_node
from alnnode.model import bundle as bundles
from alnnode.phantom import PhantomSettings
from alnnode.records import Node, SliceRef, Volume
from training.detection import evaluate_detector_implants, implanted_patients
from training.detection.fold_detectors import FoldDetectors
from training.detection.implanted_patients import ImplantPlan, detect_on_patients
from training.detection.reference import MarkedPlace, Reference
from training.evaluate import detection_run

PLAN = ImplantPlan(5, 1, 2, None)
CHANGED_HU, LEAST_VOXELS = 60, 9


def turned_patient() -> tuple[Volume, Reference]:
    """A phantom whose rows run to the front and columns to the right, and the marks of its nodes."""
    made = phantom.make_patient(
        123, 0, PhantomSettings(size=112, slices=(42, 42), thickness_mm=(5.0, 5.0), spacing_mm=(3.6, 3.6))
    )
    turned = np.ascontiguousarray(made.hu[:, ::-1, ::-1])
    _, rows, columns = turned.shape
    affine = made.affine.copy()
    affine[:3, 3] += affine[:3, 1:3] @ [rows - 1, columns - 1]
    affine[:3, 1:3] *= -1
    volume = Volume(turned, affine, tuple(SliceRef("", "", None, (0, 0, 0)) for _ in turned), Dataset(), made.spacing)
    centres = [tuple((a + b - 1) / 2 for a, b in zip(node.box.low, node.box.high, strict=True)) for node in made.nodes]
    places = tuple(MarkedPlace((k, rows - 1 - j, columns - 1 - i), 12.0, 8.0, 2) for k, j, i in centres)
    return volume, Reference(made.spacing, places, (), ())


class PerfectSearch:
    """Finds everything that was drawn into a volume, and every own node of the patient; remembers with which detector it was asked."""

    def __init__(self, volume: Volume, reference: Reference) -> None:
        self.before = Frame.of(volume).canonical(volume.voxels)
        self.own = [Frame.of(volume).canonical_position(place.centre, volume.voxels.shape) for place in reference.nodes]
        self.asked: list[object] = []

    def __call__(self, anatomy: ChestAnatomy, detector: object, _limits: object) -> list[Node]:
        self.asked.append(detector)
        drawn = np.abs(anatomy.volume.voxels.astype(int) - self.before) > CHANGED_HU
        for z, y, x in self.own:
            drawn[int(z) : int(z) + 2, int(y) - 1 : int(y) + 3, int(x) - 1 : int(x) + 3] = True
        labels, _ = ndimage.label(drawn)
        boxes = [(n, box) for n, box in enumerate(ndimage.find_objects(labels), start=1) if (labels == n).sum() >= LEAST_VOXELS]
        nodes = [measure_node(anatomy.volume, labels[box] == n, tuple(s.start for s in box)) for n, box in boxes]
        return [replace(node, score=0.9) for node in nodes]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> PerfectSearch:
    volume, reference = turned_patient()
    found = PerfectSearch(volume, reference)
    monkeypatch.setattr(implanted_patients, "volume_of", lambda _: volume)
    monkeypatch.setattr(detection_run, "locate_nodes", found)
    return found


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_bundle(bundles.load(bundles.resolve("demo")))


def test_own_nodes_of_the_patient_are_neither_found_nor_false(detector: Detector, search: PerfectSearch) -> None:
    detectors = FoldDetectors(detector, None, detector.settings)
    _, reference = turned_patient()
    (known,) = detect_on_patients({"p": (Path("p"), reference)}, detectors, PLAN)
    (unknown,) = detect_on_patients({"p": (Path("p"), replace(reference, nodes=()))}, detectors, PLAN)
    assert len(reference.nodes) >= 3
    assert len(known.targets) >= 2
    assert any(target.score for target in known.targets)
    assert known.false_positive_marks() == []
    # Without the marks, drawings may cover own nodes.
    assert 1 <= len(unknown.false_positive_marks()) <= len(reference.nodes)


def test_each_case_is_searched_by_its_own_network(detector: Detector, search: PerfectSearch, tmp_path: Path) -> None:
    _, reference = turned_patient()
    state = load(bundles.load(bundles.resolve("demo")).weights("detector"))
    save_file(state, tmp_path / "without-a.safetensors")
    save_file({name: value * 0 for name, value in state.items()}, tmp_path / "without-b.safetensors")
    cases = {name: (Path(name), reference) for name in ("a", "b")}
    first, second = detect_on_patients(cases, FoldDetectors(None, tmp_path, detector.settings), PLAN)
    assert [bool(used.network.out.weight.any()) for used in search.asked] == [True, False]
    assert first.targets != second.targets, "each case has nodes of its own"
    with pytest.raises(AlnnodeError, match="without-c"):
        next(detect_on_patients({"c": (Path("c"), reference)}, FoldDetectors(None, tmp_path, detector.settings), PLAN))


def test_the_command_prints_and_writes_the_figures(
    search: PerfectSearch,
    detector: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, reference = turned_patient()
    save_file(load(bundles.load(bundles.resolve("demo")).weights("detector")), tmp_path / "without-p.safetensors")
    monkeypatch.setattr(evaluate_detector_implants, "find_cases", lambda *_: {"p": (Path("p"), reference)})
    run = evaluate_detector_implants.evaluate_detector_implants
    run(tmp_path, tmp_path, tmp_path, per_side=2, single=True, seed=5, out=tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert len(search.asked) == 2
    assert figures["volumes"] == 2
    assert f"{figures['nodes']} nodes in 2 volumes of 1 patients, seed 5" in capsys.readouterr().out
    assert figures["sensitivity"][0] > 0.5
