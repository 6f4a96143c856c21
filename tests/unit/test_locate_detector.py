"""The scorer's form: settings, weights, patches; not its skill."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alnnode.errors import BundleError
from alnnode.locate.candidates import Candidate, SearchGrid
from alnnode.locate.detector import Detector, DetectorSettings, ScoreNet, patch_of
from alnnode.locate.grid import Frame
from alnnode.locate.shape import describe
from alnnode.records import Side

SETTINGS = DetectorSettings()


def weights(seed=0):
    torch.manual_seed(seed)
    return ScoreNet(SETTINGS.channels).state_dict()


def candidate(side=Side.RIGHT, offset=(20, 20, 10), seed=0):
    hu = np.random.default_rng(seed).normal(-90, 20, (50, 50, 50)).astype(np.float32)
    mask = np.zeros((6, 6, 9), bool)
    mask[1:5, 1:5, 1:8] = True
    box = tuple(slice(o, o + n) for o, n in zip(offset, mask.shape, strict=True))
    hu[box][mask] = 50
    everywhere = np.ones(hu.shape, bool)
    grid = SearchGrid(side, hu, hu, everywhere, ~everywhere, (0, 0, 0), Frame(False, False, False, (1.0, 1.0, 1.0)), None)
    return Candidate(grid, mask, offset, -20.0, describe(hu, mask, offset, 1.0, 1.0))


def test_scores_do_not_depend_on_the_company():
    detector = Detector(weights(), SETTINGS)
    all_of_them = [candidate(offset=(n % 30, 20, 10), seed=n) for n in range(40)]
    together = detector.score(all_of_them)
    assert together.shape == (40,)
    assert ((together > 0) & (together < 1)).all()
    assert len(set(together.tolist())) > 1
    alone = np.concatenate([detector.score([c]) for c in all_of_them[35:]])
    np.testing.assert_allclose(together[35:], alone, atol=1e-6)
    assert detector.score([]).shape == (0,)


def test_patch_is_centred_and_left_is_the_mirror_of_right():
    right, left = patch_of(candidate(Side.RIGHT), SETTINGS), patch_of(candidate(Side.LEFT), SETTINGS)
    np.testing.assert_array_equal(left, right[..., ::-1])
    assert right.shape == (2, 32, 32, 32)
    middle = np.argwhere(right[1] > 0).mean(axis=0)
    assert np.abs(middle - 16).max() <= 1
    assert right[0][right[1] > 0].mean() == pytest.approx((50 + 160) / 400, abs=0.01)


@pytest.mark.parametrize("offset", [(0, 0, 0), (44, 44, 41)])
def test_patch_at_a_corner_is_filled_with_fat(offset):
    patch = patch_of(candidate(offset=offset), SETTINGS)
    assert patch[1].sum() == 4 * 4 * 7
    far = patch[0, 0, 0, 0] if offset[0] == 0 else patch[0, -1, -1, -1]
    assert far == pytest.approx((-100 + 160) / 400)


class Bundle:
    def __init__(self, settings, tensors):
        self.detector_settings = settings
        self._tensors = tensors

    def tensors(self, name):
        assert name == "detector"
        return self._tensors


def test_a_bundle_gives_its_detector_in_half_precision_too():
    state = {name: t.half() if t.is_floating_point() else t for name, t in weights().items()}
    detector = Detector.from_bundle(Bundle(DetectorSettings(threshold=0.3).to_dict(), state))
    assert detector.settings.threshold == 0.3
    assert detector.score([candidate()]).dtype == np.float32


@pytest.mark.parametrize(
    ("settings", "state"),
    [
        (None, {}),
        (SETTINGS.to_dict(), {}),
        (SETTINGS.to_dict(), {"unknown": torch.zeros(3)}),
        ({**SETTINGS.to_dict(), "channels": [8, 8, 8]}, weights()),
        ({**SETTINGS.to_dict(), "channels": "many"}, weights()),
        ({**SETTINGS.to_dict(), "patch": 4000}, weights()),
        ({**SETTINGS.to_dict(), "threshold": 7}, weights()),
        ({**SETTINGS.to_dict(), "surprise": 1}, weights()),
    ],
)
def test_a_damaged_bundle_is_refused(settings, state):
    with pytest.raises(BundleError):
        Detector.from_bundle(Bundle(settings, state))
