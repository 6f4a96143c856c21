"""Readers' marks, crops, drawings and the training loop of the detector; the accuracy of the detector is not tested here."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from alnnode.locate.detector import mirrored_ramps
from alnnode.locate.network import AxillaNet
from alnnode.records import Side
from training.detection import reference, samples, score
from training.detection.axilla_implants import AxillaImplanter
from training.detection.case_series import find_cases
from training.detection.crops import AxillaCrop, ball, ignored
from training.detection.evaluate_patients import evaluate_real, patient_metrics, patient_table
from training.detection.fold_names import file_without
from training.detection.learner import FitSettings, Learner
from training.detection.samples import Kind, Store, axilla
from training.detection.train import DetectorPlan, axillae_of_fold, check_start, folds_of, train_folds

NO_DRAWINGS = {"copies": 0, "phantoms": 0, "warm_up": 0, "seed": 7, "processes": 1, "parallel": 1}


def mark(k, y, x, confidence="sure", long_mm=10, short_mm=7):
    return {"k": k, "y": y, "x": x, "confidence": confidence, "long_mm": long_mm, "short_mm": short_mm}


def marks(nodes, structures=(), spacing=(2.0, 0.8, 0.8)):
    return {"spacing": list(spacing), "nodes": list(nodes), "not": list(structures), "axilla_range": {"R": [3, 40]}}


def test_a_reference_node_was_marked_by_both_and_called_sure_by_one():
    first = marks([mark(10, 50, 50), mark(20, 80, 80, "possible"), mark(30, 10, 10)], [{"k": 5, "y": 5, "x": 5}])
    second = marks([mark(11, 52, 50, "possible"), mark(20, 81, 80, "possible"), mark(33, 60, 60)])
    found = reference.pair_readers(first, second)
    assert [place.centre for place in found.nodes] == [(10.5, 51.0, 50.0)]
    assert sorted((place.centre[0], place.readers) for place in found.uncertain) == [(20.0, 2), (30.0, 1), (33.0, 1)]
    assert [place.centre for place in found.structures] == [(5.0, 5.0, 5.0)]


def test_the_nearest_mark_of_the_other_reader_is_the_same_node():
    found = reference.pair_readers(marks([mark(10, 50, 50)]), marks([mark(10, 56, 50), mark(10, 51, 50)]))
    assert found.nodes[0].centre == (10.0, 50.5, 50.0)
    assert [place.centre for place in found.uncertain] == [(10.0, 56.0, 50.0)]


def test_marks_that_cannot_be_read_name_the_file(tmp_path):
    with pytest.raises(reference.MarksError, match=r"A/nobody\.json"):
        reference.read_reference(tmp_path, "nobody")


def box(low, high, score_=0.9):
    return score.LocatedBox(tuple(map(float, low)), tuple(map(float, high)), score_, 7.0)


@pytest.fixture
def two_readers():
    first = marks([mark(10, 50, 50), mark(10, 60, 50), mark(30, 90, 90, "possible")])
    second = marks([mark(10, 50, 50), mark(10, 60, 50)])
    return reference.pair_readers(first, second)


def test_a_box_finds_one_node_at_most(two_readers):
    both = box((8, 45, 45), (12, 65, 55))
    assert score.match_boxes([both], two_readers).found == (0, None)
    own = [box((8, 47, 47), (12, 53, 53)), box((8, 57, 47), (12, 63, 53)), both]
    counted = score.match_boxes(own, two_readers)
    assert counted.found == (0, 1)
    assert counted.false == ()  # a second box on a node contains a mark, so it is not false


def test_a_box_on_an_uncertain_mark_is_neither_found_nor_false(two_readers):
    counted = score.match_boxes([box((29, 88, 88), (31, 92, 92)), box((50, 10, 10), (52, 15, 15))], two_readers)
    assert counted.found == (None, None)
    assert counted.false == (1,)


def test_the_curve_counts_at_every_score(two_readers):
    boxes = (box((8, 47, 47), (12, 53, 53), 0.9), box((50, 10, 10), (52, 15, 15), 0.7), box((8, 57, 47), (12, 63, 53), 0.5))
    found = score.froc_curve([score.ScoredSeries("one", boxes, two_readers)])
    assert found.thresholds.tolist() == [0.9, 0.7, 0.5]
    assert found.hits.tolist() == [[1, 1, 2]]
    assert found.false.tolist() == [[0, 1, 1]]
    assert score.sensitivity_at_rate(found, 0.5).value == 0.5
    assert score.sensitivity_at_rate(found, 1.0).value == 1.0
    assert score.sensitivity_at(found, 0.6).value == 0.5
    assert score.false_boxes_at(found, 0.6).value == 1.0
    assert score.threshold_at_rate(found, 0.5) == 0.9


def one_node(case, node_score, false_score):
    """A series with one node, found by a box with one score, and a false box with another."""
    seen = reference.pair_readers(marks([mark(10, 50, 50)]), marks([mark(10, 50, 50)]))
    boxes = (box((8, 47, 47), (12, 53, 53), node_score), box((50, 10, 10), (52, 15, 15), false_score))
    return score.ScoredSeries(case, boxes, seen)


def test_a_series_takes_no_part_in_the_choice_of_its_threshold():
    evaluated = [one_node("one", 0.9, 0.8), one_node("two", 0.7, 0.6), one_node("three", 0.3, 0.5)]
    found = score.froc_curve(evaluated)
    # For "one" and "two" the others need 0.3. For "three" they need 0.7, where its own node is missed.
    assert score.counts_at_threshold_of_others(found, 1.0) == (2, 2)
    assert score.sensitivity_at_rate(found, 1.0).value == 1.0
    # No false box: the others of "one" need 0.7, those of "two" and "three" 0.9.
    assert score.counts_at_threshold_of_others(found, 0.0) == (1, 1)
    assert "| threshold chosen on the other patients" in patient_table(patient_metrics(evaluated, 0.5))


def test_short_axes_are_compared_with_the_mean_of_the_readers():
    seen = reference.pair_readers(
        marks([mark(10, 50, 50, short_mm=6), mark(30, 90, 90)]), marks([mark(10, 50, 50, short_mm=5), mark(30, 90, 90)])
    )
    one = score.ScoredSeries("one", (box((8, 47, 47), (12, 53, 53)), box((28, 87, 87), (32, 93, 93), 0.2)), seen)
    assert score.short_axis_differences([one], 0.5).tolist() == [1.5]
    assert patient_metrics([one], 0.5)["short_axis"] == {"nodes": 1, "median_absolute_mm": 1.5, "median_mm": 1.5}


def test_counting_agrees_with_the_script_beside_the_marks(two_readers, tmp_path, shared_marks_script):
    """This code and the script that was published with the marks count the same boxes equally."""
    boxes = [
        box((8, 45, 45), (12, 65, 55)),
        box((8, 57, 47), (12, 63, 53)),
        box((50, 1, 1), (52, 5, 5)),
        box((29, 88, 88), (31, 92, 92)),
    ]
    printed = shared_marks_script(
        tmp_path,
        marks([mark(10, 50, 50), mark(10, 60, 50), mark(30, 90, 90, "possible")]),
        marks([mark(10, 50, 50), mark(10, 60, 50)]),
        boxes,
    )
    counted = score.match_boxes(boxes, two_readers)
    hits = sum(n is not None for n in counted.found)
    assert f"{hits} of 2 nodes found, {len(counted.false)} of 4 boxes hold nothing" in printed


@pytest.fixture
def shared_marks_script():
    import subprocess
    import sys
    from pathlib import Path

    script = Path(__file__).parents[4] / "shared" / "data" / "marks" / "score.py"
    if not script.exists():
        pytest.skip("NO READERS' MARKS: ../shared/data/marks/score.py is not here")

    def run(folder, first, second, boxes):
        for reader, content in (("A", first), ("B", second)):
            (folder / reader).mkdir()
            (folder / reader / "one.json").write_text(json.dumps(content))
        result = {"nodes": [{"box_voxels": [list(b.low), list(b.high)]} for b in boxes]}
        (folder / "result.json").write_text(json.dumps(result))
        command = [sys.executable, str(script), str(folder), f"one={folder / 'result.json'}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return run


def crop_of(case="p", side=Side.RIGHT, seed=0):
    rng = np.random.default_rng(seed)
    hu = rng.normal(-100, 12, (60, 70, 64)).astype(np.float32)
    hu[:, 50:] = rng.normal(55, 12, (60, 20, 64))
    region = np.zeros(hu.shape, bool)
    region[5:55, 8:48, 8:56] = True
    nodes = np.zeros(hu.shape, np.uint8)
    nodes[ball(hu.shape, np.array([20, 20, 20]), 5)] = 1
    hu[nodes > 0] += 150
    ramps = np.array([[1.0, -0.01], [0.1, 0.005], [1.4, -0.008]])
    uncertain = np.array([[40, 30, 40, 6]], np.float32)
    return AxillaCrop(case, side, hu, region, ramps, nodes, uncertain, np.array([[30, 40, 20]], np.float32), 2.0)


def test_a_crop_survives_being_stored():
    crop = crop_of()
    again = AxillaCrop.from_bytes(crop.to_bytes())
    assert np.abs(again.hu - crop.hu).max() <= 3.01
    for name in ("region", "nodes", "ramps", "uncertain", "structures"):
        np.testing.assert_array_equal(getattr(again, name), getattr(crop, name))
    assert (again.case, again.side, again.thickness_mm) == ("p", Side.RIGHT, 2.0)


def test_mirrored_ramps_name_the_same_places():
    ramps = np.array([[1.0, -0.01], [0.1, 0.005], [1.4, -0.008]])
    mirrored = mirrored_ramps(ramps, 64)
    assert mirrored[2] @ (1, 63 - 10) == pytest.approx(ramps[2] @ (1, 10))
    np.testing.assert_array_equal(mirrored[:2], ramps[:2])


def test_drawings_repeat_and_keep_off_real_nodes():
    crop = crop_of()
    one, two = AxillaImplanter(crop).implant(3, 6, 2), AxillaImplanter(crop).implant(3, 6, 2)
    np.testing.assert_array_equal(one.hu, two.hu)
    np.testing.assert_array_equal(one.nodes, two.nodes)
    assert one.nodes.max() > 1
    np.testing.assert_array_equal(one.nodes[crop.nodes > 0], crop.nodes[crop.nodes > 0])
    drawn = one.nodes > 1
    assert not (drawn & ignored(crop)).any()
    assert one.hu[drawn].mean() > crop.hu[drawn].mean() + 30
    other = AxillaImplanter(crop).implant(4, 6, 2)
    assert not np.array_equal(one.nodes, other.nodes)


def test_depth_is_greatest_at_the_core_of_each_node():
    crop = crop_of()
    depth, targets = samples.depths(crop.nodes)
    assert targets.tolist() == [[20, 20, 20]]
    assert depth[20, 20, 20] == 255
    assert (depth[crop.nodes > 0] > 0).all()
    assert (depth[crop.nodes == 0] == 0).all()


def axillae():
    made = []
    for case in ("p", "q"):
        crop = crop_of(case)
        painted = AxillaImplanter(crop).implant(1, 4, 1)
        made += [axilla(crop, crop.hu, crop.nodes, Kind.REAL), axilla(crop, painted.hu, painted.nodes, Kind.DRAWN)]
    crop = crop_of("")
    return [*made, axilla(crop, crop.hu, crop.nodes, Kind.PHANTOM)]


def test_a_network_is_evaluated_on_a_patient_without_whom_it_was_trained():
    made = axillae()
    assert [fold.name for fold in folds_of(made, 0)] == ["detector"]
    folds = folds_of(made, 1)
    assert [fold.name for fold in folds] == ["detector", "without-p", "without-q"]
    assert axillae_of_fold(folds[0], made) == [0, 1, 2, 3, 4]
    assert [made[n].case for n in axillae_of_fold(folds[1], made)] == ["q", "q", ""]


def test_groups_of_patients_are_left_out_together_and_each_finds_its_network(tmp_path):
    made = axillae()
    first = [axilla(crop_of("o"), crop_of("o").hu, crop_of("o").nodes, Kind.REAL)]
    folds = folds_of([*first, *made], 2)
    assert [fold.name for fold in folds] == ["detector", "without-o+p", "without-q"]
    assert [[*first, *made][n].case for n in axillae_of_fold(folds[1], [*first, *made])] == ["q", "q", ""]
    for fold in folds:
        (tmp_path / f"{fold.name}.safetensors").touch()
    assert [file_without(tmp_path, case).name for case in ("o", "p", "q")] == [
        "without-o+p.safetensors",
        "without-o+p.safetensors",
        "without-q.safetensors",
    ]
    assert file_without(tmp_path, "r") is None
    with pytest.raises(SystemExit, match=r"o\+p"):
        folds_of([axilla(crop_of("o+p"), crop_of("o+p").hu, crop_of("o+p").nodes, Kind.REAL)], 1)
    (tmp_path / "without-p.safetensors").touch()
    assert file_without(tmp_path, "p").name == "without-p.safetensors"


def test_patches_repeat_and_voxels_without_a_certain_label_have_no_weight():
    store = Store(axillae(), torch.device("cpu"), 32)
    one, two = (store.batch([0, 1, 4], np.random.default_rng(5)) for _ in range(2))
    for mine, other in zip((one.hu, one.node, one.weight, one.place), (two.hu, two.node, two.weight, two.place), strict=True):
        assert torch.equal(mine, other)
    assert one.hu.shape == (3, 1, 32, 32, 32)
    assert one.place.shape == (3, 3, 32, 32, 32)
    assert set(one.weight.unique().tolist()) <= {0.0, 1.0, float(samples.STRUCTURE_WEIGHT)}
    assert (one.depth[one.node == 0] == 0).all()


def test_resumed_training_gives_the_same_weights(tmp_path):
    store = Store(axillae(), torch.device("cpu"), 32)
    settings = FitSettings(channels=(4, 6), steps=6, batch=2)
    whole = Learner(store, range(5), settings)
    losses = [float(whole.step()) for _ in range(6)]
    assert all(np.isfinite(losses))
    broken = Learner(store, range(5), settings)
    for _ in range(3):
        broken.step()
    broken.save_checkpoint(tmp_path / "one.checkpoint")
    again = Learner(store, range(5), replace(settings))
    again.resume(tmp_path / "one.checkpoint")
    for _ in range(3):
        again.step()
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, again.average.state_dict()[name]), name


def test_each_network_continues_from_its_own(tmp_path):
    """A network that is evaluated on a patient never continues from one that was trained on that patient."""
    plan = DetectorPlan(tmp_path, tmp_path / "out", tmp_path, 1, steps=1, rate=0.0, patch=32, **NO_DRAWINGS)
    made, threads = axillae(), torch.get_num_threads()
    folds = folds_of(made, 1)
    given = {}
    for number, fold in enumerate(folds):
        torch.manual_seed(number)
        given[fold.name] = {name: value.half() for name, value in AxillaNet(FitSettings().channels).state_dict().items()}
        save_file(given[fold.name], tmp_path / f"{fold.name}.safetensors")
    plan.out.mkdir()
    train_folds(plan, made, folds, threads)
    for fold in folds:
        found = load_file(plan.out / f"{fold.name}.safetensors")
        # With a learning rate of 0 only the statistics of the batch norms change.
        assert torch.equal(found["stem.0.weight"], given[fold.name]["stem.0.weight"]), fold.name
    (tmp_path / "without-p.safetensors").unlink()
    with pytest.raises(SystemExit, match=r"no network to continue from: without-p\.safetensors"):
        check_start(plan, folds)


def test_the_evaluation_of_a_bundle_on_patients_warns_of_patients_of_its_training(tmp_path, capsys):
    for folds, warned in ((None, True), (tmp_path, False)):
        with pytest.raises(reference.MarksError):
            evaluate_real(data=tmp_path, marks=tmp_path, folds=folds)
        assert ("no measure of accuracy" in capsys.readouterr().out) is warned


def test_a_case_whose_images_are_not_there_is_named(tmp_path):
    for reader in ("A", "B"):
        (tmp_path / "marks" / reader).mkdir(parents=True)
        (tmp_path / "marks" / reader / "one.json").write_text(json.dumps(marks([mark(1, 2, 3)])))
    (tmp_path / "data").mkdir()
    with pytest.raises(
        reference.MarksError,
        match="case one: 0 folders with voxels of 2 x 0.8 x 0.8 mm; name the folder with --case one=FOLDER",
    ):
        find_cases(tmp_path / "marks", tmp_path / "data", {})
    with pytest.raises(reference.MarksError, match="no case with marks of both readers"):
        find_cases(tmp_path / "data", tmp_path / "data", {})


def test_training_needs_only_what_a_rented_gpu_has():
    """It needs PyTorch, SciPy, scikit-image and pydicom, and none of the other dependencies of the node and of the other commands."""
    import subprocess
    import sys

    absent = [
        "pydantic",
        "structlog",
        "rich",
        "monai",
        "highdicom",
        "pytorch_grad_cam",
        "sqlalchemy",
        "celery",
        "sklearn",
        "matplotlib",
    ]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import training.detection.train"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == ""
