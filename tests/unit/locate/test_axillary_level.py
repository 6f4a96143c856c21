"""Axillary levels: places between landmarks, and the small model that reads them."""

from __future__ import annotations

import numpy as np
import pytest

from alnnode import phantom
from alnnode.errors import BundleError
from alnnode.locate.anatomy import find_chest
from alnnode.locate.axillary_level import ORDER, PLACES, TERMS, Landmarks, LevelModel, terms
from alnnode.locate.detector import DetectorSettings
from alnnode.locate.grid import Frame, coarsen
from alnnode.model import bundle
from alnnode.phantom import PhantomSettings, Position
from training.data.cohort import as_volume
from training.fit.levels import fit


def landmarks_of(made) -> tuple[Landmarks, Frame]:
    volume = as_volume(made)
    frame = Frame.of(volume)
    coarse = coarsen(frame.canonical(volume.voxels), frame.spacing)
    chest = find_chest(coarse)
    assert chest is not None
    return Landmarks(coarse, chest), frame


def test_a_place_says_how_far_down_how_far_out_and_how_deep() -> None:
    made = phantom.make_patient(31, 0, PhantomSettings(slices=(90, 90), thickness_mm=(2.0, 2.0), position=Position.HFS))
    landmarks, _ = landmarks_of(made)
    node = made.nodes[0]
    z, y, x = node.box.centre
    here = landmarks.place(z, y, x)
    assert landmarks.place(z - 10, y, x)[0] == pytest.approx(here[0] + 20, abs=0.01)
    assert landmarks.place(z, y + 10, x)[3] > here[3]
    further_out = x + (10 if x > 256 else -10)
    assert landmarks.place(z, y, further_out)[1] > here[1]
    assert landmarks.place(z, y, further_out)[2] == pytest.approx(here[2] + 10 * made.spacing[2], abs=0.01)


@pytest.mark.parametrize("position", [Position.HFS, Position.FFS, Position.HFP])
def test_the_shipped_model_tells_the_levels_of_a_phantom_in_any_position(position: Position) -> None:
    settings = DetectorSettings.from_dict(bundle.load(bundle.resolve("demo")).detector_settings)
    assert settings.levels is not None
    made = phantom.make_patient(8807, 1, PhantomSettings(min_nodes_per_side=8, thickness_mm=(2.0, 2.5), position=position))
    landmarks, frame = landmarks_of(made)
    labels = frame.canonical(made.labels)
    told = [settings.levels.level(landmarks.place(*np.argwhere(labels == node.number).mean(axis=0))) for node in made.nodes]
    right = [one is node.level for one, node in zip(told, made.nodes, strict=True)]
    assert np.mean(right) >= 0.85


def test_a_place_between_two_levels_is_not_told() -> None:
    rng = np.random.default_rng(0)
    places = rng.normal(size=(300, PLACES))
    levels = np.array(["I" if a > 0.5 else "III" if a < -0.5 else "II" for a in places[:, 1]])
    model = fit(places, levels)
    line = np.zeros((81, PLACES))
    line[:, 1] = np.linspace(2, -2, 81)
    told = [model.level(place) for place in line]
    # From one level to the next there is a place where neither is told.
    assert [one for n, one in enumerate(told) if n == 0 or told[n - 1] is not one] == [ORDER[0], None, ORDER[1], None, ORDER[2]]
    assert all(model.probabilities(place).sum() == pytest.approx(1) for place in line)


def test_a_damaged_model_is_refused() -> None:
    good = {"mean": [0.0] * PLACES, "scale": [1.0] * PLACES, "weights": [[0.0] * TERMS] * 3, "least": 0.6}
    assert LevelModel.from_dict(good).probabilities(np.zeros(PLACES)) == pytest.approx([1 / 3] * 3)
    for change in ({"scale": [0.0] * PLACES}, {"weights": [[0.0] * TERMS] * 2}, {"mean": ["x"] * PLACES}, {"least": None}):
        with pytest.raises(BundleError, match="levels"):
            LevelModel.from_dict(good | change)
    assert terms(np.arange(PLACES, dtype=float)).shape == (TERMS,)
