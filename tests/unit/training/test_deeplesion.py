"""The benchmark on DeepLesion: its rules and its files, on data of that shape made from phantoms. No figure here describes a detector."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from deeplesion_data import TERMS, labels_of, row, write_table

from training.deeplesion import recall
from training.deeplesion.errors import DeepLesionError
from training.deeplesion.labels import read_labels
from training.deeplesion.matching import Counted, Overlap, count, overlap
from training.deeplesion.search import FoundNode
from training.deeplesion.selection import Choice, SubVolume, select
from training.deeplesion.table import Lesion, against_order, read_table

NODE = Lesion(0, "000001_01_01", 1, 10, (20.0, 20.0, 39.0, 39.0), 0.38, False, 4, 16, (5.0, 0.8, 0.8), "test")
SUB = SubVolume("000001_01_01", 1, 4, 16, (5.0, 0.8, 0.8), (NODE,))


def found(score, box, key=10):
    return FoundNode(score, 8.0, {key: tuple(map(float, box))})


# --- counting, by hand


def test_the_overlap_of_two_boxes_is_the_one_counted_by_hand():
    # 20 x 20 pixels each, half of it shared: 200 of 600 by IoU, 200 of 400 by IoBB.
    one, other = (0.0, 0.0, 19.0, 19.0), (10.0, 0.0, 29.0, 19.0)
    assert overlap(one, other, Overlap.IOU) == pytest.approx(200 / 600)
    assert overlap(one, other, Overlap.IOBB) == pytest.approx(200 / 400)
    assert overlap(one, one, Overlap.IOU) == 1
    assert overlap(one, (40.0, 40.0, 50.0, 50.0), Overlap.IOU) == 0
    # A small box inside a large one: all of it by IoBB, a quarter of the union by IoU.
    small = (0.0, 0.0, 9.0, 9.0)
    assert overlap(small, one, Overlap.IOBB) == 1
    assert overlap(small, one, Overlap.IOU) == pytest.approx(0.25)


def test_a_node_gets_the_margin_of_the_data_set_before_it_is_compared():
    # The lesion's box holds 5 pixels on each side; the node's cross-section does not.
    assert count([found(0.9, (25, 25, 34, 34))], SUB, Overlap.IOU) == Counted(1, (0.9,), ())
    # 20 x 20 with its margin, moved by 7 of 20 columns: 260 of 540 are shared by IoU, which is too little; 260 of 400 by IoBB is enough.
    moved = [found(0.9, (32, 25, 41, 34))]
    assert count(moved, SUB, Overlap.IOU) == Counted(1, (0.0,), (0.9,))
    assert count(moved, SUB, Overlap.IOBB) == Counted(1, (0.9,), ())


def test_a_node_on_another_slice_or_place_is_false_and_a_second_one_is_not():
    nodes = [
        found(0.9, (25, 25, 34, 34)),
        found(0.8, (25, 25, 34, 34), key=9),
        found(0.7, (26, 25, 35, 34)),
        found(0.6, (80, 80, 90, 90)),
    ]
    assert count(nodes, SUB, Overlap.IOU) == Counted(1, (0.9,), (0.8, 0.6))


def test_a_node_on_a_lesion_that_does_not_count_is_neither_hit_nor_false():
    other = replace(NODE, number=1, box=(75.0, 75.0, 95.0, 95.0))
    nodes = [found(0.6, (80, 80, 90, 90))]
    assert count(nodes, replace(SUB, others=(other,)), Overlap.IOU) == Counted(1, (0.0,), ())
    assert count(nodes, SUB, Overlap.IOU) == Counted(1, (0.0,), (0.6,))


def test_recall_at_a_rate_is_the_one_counted_by_hand():
    # Three sub-volumes of two patients, four lesions. From the highest score down: hit, false, hit, false, false, false, hit.
    counted = [
        Counted(1, (0.9, 0.0), (0.8, 0.5)),
        Counted(1, (0.2,), (0.4,)),
        Counted(2, (0.7,), (0.6,)),
    ]
    curve = recall.curve(counted)
    assert curve.thresholds.tolist() == [2.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2]
    assert curve.hits.sum(axis=0).tolist() == [0, 1, 1, 2, 2, 2, 2, 3]
    assert curve.false.sum(axis=0).tolist() == [0, 0, 1, 1, 2, 3, 4, 4]
    values = [interval.value for interval in recall.recalls(curve, (0.0, 0.34, 1.0, 2.0))]
    assert values == [1 / 4, 2 / 4, 2 / 4, 3 / 4]
    assert recall.threshold_at(curve, 1.0) == 0.5
    assert recall.threshold_at(curve, 8.0) == 0.2
    assert recall.most_false(curve) == pytest.approx(4 / 3)


def test_nothing_found_is_a_recall_of_nothing():
    curve = recall.curve([Counted(1, (0.0,), ()), Counted(2, (0.0, 0.0), ())])
    assert [(i.value, i.low, i.high) for i in recall.recalls(curve)] == [(0, 0, 0)] * 4
    assert recall.most_false(curve) == 0


def test_the_interval_comes_from_patients_not_from_lesions():
    # All ten lesions of a patient are found together or missed together: the interval is that of 20 patients, not of 200 lesions.
    counted = [Counted(n, (0.9 if n % 2 else 0.0,) * 10, ()) for n in range(20)]
    interval = recall.recalls(recall.curve(counted), (1.0,))[0]
    assert interval.value == 0.5
    assert 0.2 < interval.low < 0.35
    assert 0.65 < interval.high < 0.8
    assert recall.recalls(recall.curve(counted), (1.0,)) == [interval]


# --- the table


def test_a_row_is_read_with_coordinates_from_zero(tmp_path):
    lesions = read_table(write_table(tmp_path / "DL_info.csv", [row(), row(Possibly_noisy="1", Train_Val_Test="1")]))
    assert lesions[0] == Lesion(0, "000001_01_01", 1, 10, (20.0, 20.0, 40.0, 40.0), 0.38, False, 4, 16, (5.0, 0.8, 0.8), "test")
    assert (lesions[1].number, lesions[1].noisy, lesions[1].split) == (1, True, "train")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"Bounding_boxes": "21, 21, 41"}, "line 3: Bounding_boxes does not hold 4 numbers"),
        ({"Bounding_boxes": "41, 21, 21, 41"}, "line 3: Bounding_boxes is not left, top, right, bottom"),
        ({"Spacing_mm_px_": "0.8, wide, 5"}, "line 3: Spacing_mm_px_ does not hold 3 numbers"),
        ({"Spacing_mm_px_": "0, 0, 5"}, "pixel spacing that is not positive"),
        ({"Key_slice_index": "11"}, "line 3: File_name is not PATIENT_STUDY_SERIES_SLICE.png"),
        ({"Key_slice_index": "10.5"}, "line 3: Key_slice_index does not hold an integer"),
        ({"Patient_index": "nan"}, "line 3: Patient_index does not hold an integer"),
        ({"Slice_range": ""}, "line 3: Slice_range does not hold 2 numbers"),
        ({"Train_Val_Test": "4"}, "line 3: Train_Val_Test is not 1, 2 or 3"),
    ],
)
def test_a_bad_row_is_named_by_line_and_column(tmp_path, changes, said):
    path = write_table(tmp_path / "DL_info.csv", [row(), row(**changes)])
    with pytest.raises(DeepLesionError, match=said):
        read_table(path)


def test_a_file_that_is_no_such_table_is_refused(tmp_path):
    with pytest.raises(DeepLesionError, match="Cannot read"):
        read_table(tmp_path / "DL_info.csv")
    (tmp_path / "DL_info.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(DeepLesionError, match="has no column File_name, Patient_index"):
        read_table(tmp_path / "DL_info.csv")


def test_series_against_the_order_of_slices_are_counted():
    below = replace(NODE, number=1, key_slice=30, height=0.5)
    near = replace(NODE, number=2, series="000002_01_01", key_slice=14, height=0.2)
    assert against_order([NODE, below, near], head_first=True) == (0, 1)
    assert against_order([NODE, below, near], head_first=False) == (1, 1)


# --- the labels


def write_json(path, values):
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_labels_of_all_parts_are_read_as_one(tmp_path):
    values = labels_of({0: [3, 1]}, {2: [3]})
    values |= {"test_lesion_idxs": [1], "test_relevant_labels": [[0]], "test_uncertain_labels": [[2]]}
    labels = read_labels(write_json(tmp_path / "labels.json", values), 3)
    assert labels.relevant == {0: {"axilla lymph node", "lymph node"}, 1: {"chest"}, 2: frozenset()}
    assert labels.uncertain == {0: frozenset(), 1: {"axilla"}, 2: {"axilla lymph node"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"term_list": None}, 'no list "term_list"'),
        ({"term_list": [1, 2]}, 'no list "term_list"'),
        ({"val_lesion_idxs": ["1"]}, 'no list "val_lesion_idxs"'),
        ({"train_relevant_labels": [[3], [3]]}, "train_relevant_labels and train_lesion_idxs have different lengths"),
        ({"train_relevant_labels": [[7]]}, "not the number of a term"),
        ({"train_lesion_idxs": [9]}, "labels lesion 9, but DL_info.csv has 2 rows"),
    ],
)
def test_wrong_labels_are_refused(tmp_path, changes, said):
    path = write_json(tmp_path / "labels.json", labels_of({0: [3]}) | changes)
    with pytest.raises(DeepLesionError, match=said):
        read_labels(path, 2)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null"])
def test_what_is_not_the_json_of_labels_is_refused(tmp_path, text):
    (tmp_path / "labels.json").write_text(text, encoding="utf-8")
    with pytest.raises(DeepLesionError, match="LesaNet"):
        read_labels(tmp_path / "labels.json", 2)


def test_an_unknown_label_is_answered_with_near_ones(tmp_path):
    labels = read_labels(write_json(tmp_path / "labels.json", labels_of({0: [3]})), 1)
    with pytest.raises(
        DeepLesionError, match='No label is called "axillary lymph node"; the nearest labels are: axilla lymph node'
    ):
        select([NODE], labels, Choice("axillary lymph node"))


# --- the choice of lesions


def test_lesions_are_chosen_and_grouped_and_the_others_counted_with_a_reason(tmp_path):
    series = [
        NODE,
        replace(NODE, number=1, key_slice=12),  # the same sub-volume
        replace(NODE, number=2, noisy=True),
        replace(NODE, number=3),  # another label
        replace(NODE, number=4, key_slice=40, first=34, last=46),  # another range of the same series
        replace(NODE, number=5, series="000002_01_01", patient=2, spacing=(float("nan"), 0.8, 0.8)),
        replace(NODE, number=6, series="000003_01_01", patient=3, spacing=(7.5, 0.8, 0.8)),
        replace(NODE, number=7, series="000004_01_01", patient=4, key_slice=3),
        replace(NODE, number=8, series="000005_01_01", patient=5, split="train"),
        replace(NODE, number=9, series="000006_01_01", patient=6),  # with doubt
    ]
    relevant = {n: [3] for n in range(9) if n != 3} | {3: [1]}
    labels = read_labels(write_json(tmp_path / "labels.json", labels_of(relevant, {9: [3]})), 10)
    chosen = select(series, labels, Choice(TERMS[3], "test"))
    assert [(sub.name, [x.number for x in sub.targets], [x.number for x in sub.others]) for sub in chosen.subvolumes] == [
        ("000001_01_01_004-016", [0, 1], [2, 3]),
        ("000001_01_01_034-046", [4], []),
    ]
    assert sorted(chosen.excluded.values()) == [1, 1, 1, 2]
    assert sum("possibly noisy" in reason for reason in chosen.excluded) == 1
    with_noisy = select(series, labels, Choice(TERMS[3], "all", include_noisy=True))
    assert [x.number for x in with_noisy.subvolumes[0].targets] == [0, 1, 2]
    assert with_noisy.subvolumes[-1].targets == (series[8],)
    with pytest.raises(DeepLesionError, match='No usable lesion of split "val"'):
        select(series, labels, Choice(TERMS[3], "val"))
