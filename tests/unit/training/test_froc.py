"""FROC: counted by hand, and marks matched with the truth of a phantom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alnnode import phantom
from alnnode.locate.measure import node_from_mask
from alnnode.phantom import PhantomSettings
from training.data.cohort import as_volume
from training.evaluate import detection_matching, froc
from training.evaluate.detection_matching import Truth, match_marks
from training.evaluate.froc import (
    DetectionResult,
    Mark,
    Target,
    false_positives_per_volume,
    operating_threshold,
    sensitivity_at_rate,
    sensitivity_at_threshold,
)
from training.report import detection_report


def target(patient: int, score: float, short_axis_mm: float = 8.0) -> Target:
    return Target(patient, 1, short_axis_mm, malignant=False, thickness_mm=1.0, position="HFS", score=score)


EXAMINED = DetectionResult(
    volumes=4,
    # Two volumes have no node. A second mark on a node is a false positive; a mark on a small node is neither.
    marks=(
        Mark(0, 0.9, 1),
        Mark(0, 0.7, None),
        Mark(1, 0.4, 1),
        Mark(1, 0.6, None),
        Mark(2, 0.5, None, ignored=True),
        Mark(2, 0.3, None),
        Mark(3, 0.3, None),
    ),
    targets=(target(0, 0.9), target(1, 0.4), target(1, 0.0), target(2, 0.5, 4.0)),
)


def test_figures_are_those_counted_by_hand() -> None:
    assert false_positives_per_volume(EXAMINED, 0.5) == 2 / 4
    assert false_positives_per_volume(EXAMINED, 0.3) == 4 / 4
    assert sensitivity_at_threshold(EXAMINED, 0.5).value == pytest.approx(1 / 3)
    assert sensitivity_at_threshold(EXAMINED, 0.4).value == pytest.approx(2 / 3)
    assert sensitivity_at_rate(EXAMINED, 1.0).value == pytest.approx(2 / 3)
    assert sensitivity_at_rate(EXAMINED, 0.25).value == pytest.approx(1 / 3)
    assert operating_threshold(EXAMINED, 0.5) == 0.31
    assert operating_threshold(EXAMINED, 0.25) == 0.61


def test_the_interval_comes_from_volumes_not_from_nodes() -> None:
    # All nodes of a volume are found or all are missed, so the interval is that of 20 volumes and not of 200 nodes.
    targets = tuple(replace(target(p, 0.9 if p % 2 else 0.0), number=n) for p in range(20) for n in range(1, 11))
    interval = sensitivity_at_threshold(DetectionResult(20, (), targets), 0.5)
    assert interval.value == 0.5
    assert 0.2 < interval.low < 0.35
    assert 0.65 < interval.high < 0.8


def test_marks_are_matched_with_the_truth() -> None:
    made = phantom.make_patient(77, 3, PhantomSettings(slices=(60, 60), min_nodes_per_side=2))
    volume = as_volume(made)
    truth = made.nodes[0]
    mask = made.labels == truth.number
    right = node_from_mask(volume, mask, (0, 0, 0), truth.side, 1)
    right = replace(right, score=0.9)
    again = replace(right, score=0.8)
    elsewhere = np.zeros_like(mask)
    elsewhere[5:9, 5:15, 5:15] = True
    wrong = node_from_mask(volume, elsewhere, (0, 0, 0), truth.side, 2)
    wrong = replace(wrong, score=0.7)
    found = match_marks(Truth.of_phantom(made), 0, [wrong, again, right], [0.1, 0.2, 0.3])
    assert [(mark.score, mark.number) for mark in found.marks] == [(0.9, truth.number), (0.8, None), (0.7, None)]
    hit = found.targets[0]
    assert (hit.score, hit.dice, hit.side_is_right, hit.probability) == (0.9, 1.0, True, 0.3)
    assert hit.distance_mm is not None
    assert hit.distance_mm < 0.01
    assert hit.short_axis_error_mm is not None
    assert abs(hit.short_axis_error_mm) < 1.0
    assert all(target.score == 0 for target in found.targets[1:])


def test_the_table_and_the_picture_of_misses(tmp_path) -> None:
    settings = PhantomSettings(slices=(40, 40), min_nodes_per_side=2)
    made = phantom.make_patient(77, 0, settings)
    found = match_marks(Truth.of_phantom(made), 0, [], [])
    figures = detection_report.detection_metrics(found, 0.5)
    assert figures["nodes"] == len([n for n in made.nodes if n.short_axis_mm >= 5])
    assert figures["sensitivity"][0] == 0
    assert "| sensitivity (short axis ≥ 5 mm) at ≤ 1 false positives per volume | 0.000 |" in detection_report.detection_table(
        figures
    )
    missed = detection_report.draw_misses(found, 0.5, 77, settings, tmp_path / "missed.png")
    assert missed == figures["nodes"] > 0
    assert (tmp_path / "missed.png").stat().st_size > 1000


def test_touching_nodes_count_as_told_apart_when_each_has_its_own_mark():
    labels = np.zeros((4, 6, 8), np.uint16)
    labels[1:3, 1:4, 1:4], labels[1:3, 1:4, 4:7], labels[3, 5, 0] = 1, 2, 3
    assert detection_matching.touching_pairs(labels) == [(1, 2)]
    targets = tuple(Target(0, n, 8.0, False, 1.0, "HFS", score=0.9, dice=dice) for n, dice in ((1, 0.8), (2, 0.7), (3, 0.9)))
    found = DetectionResult(1, (), targets, ((0, 1, 2), (0, 2, 3)))
    assert froc.touching_pairs_separated(found, 0.5) == (2, 2)
    assert froc.touching_pairs_separated(found, 0.95) == (0, 2)
    poor = DetectionResult(1, (), (targets[0], replace(targets[1], dice=0.5), targets[2]), ((0, 1, 2), (0, 2, 3)))
    assert froc.touching_pairs_separated(poor, 0.5) == (0, 2)
