"""The detector's form: settings, weights, what it looks at; not its skill."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save
from scipy import ndimage

from alnnode.errors import BundleError
from alnnode.locate import detector as detectors
from alnnode.locate import ranking
from alnnode.locate.axilla_extent import axillary
from alnnode.locate.candidates import Candidate
from alnnode.locate.detector import FAT_HU, HALO, Detector, DetectorSettings, boxes
from alnnode.locate.grid import Frame
from alnnode.locate.network import DEPTH, NODE, AxillaNet, inputs
from alnnode.locate.search_grid import SearchGrid
from alnnode.records import Side

SETTINGS = DetectorSettings(channels=(4, 6, 8))


class Chest:
    """Landmarks of a chest 40 grid points deep, symmetric about the plane x = 19.5."""

    def ramps(self, start, step, *, left):
        away = 1 if left else -1
        return np.array([[0.4, -0.01], [0.1, 0.02], [away * (start[2] - 19.5) / 20, away * step[2] / 20]])


@pytest.fixture
def float32(monkeypatch):
    """Compute in float32, also where the processor is quicker in bfloat16."""
    monkeypatch.setattr(detectors, "number_format", lambda _: torch.float32)


def weights(seed=0):
    torch.manual_seed(seed)
    return AxillaNet(SETTINGS.channels).state_dict()


def grid_of(hu, side=Side.RIGHT, region=None):
    everywhere = np.ones(hu.shape, bool) if region is None else region
    frame = Frame(False, False, False, (1.0, 1.0, 1.0))
    return SearchGrid(side, hu, hu, everywhere, np.zeros(hu.shape, bool), (0, 0, 0), frame, Chest())


def noise(shape=(30, 36, 40), seed=0):
    return np.random.default_rng(seed).normal(-90, 60, shape).astype(np.float32)


def test_the_same_axilla_gives_the_same_map_and_its_mirror_image_the_mirrored_one():
    detector, hu = Detector(weights(), SETTINGS), noise()
    right, again = detector.predict(grid_of(hu)).node, detector.predict(grid_of(hu)).node
    left = detector.predict(grid_of(np.ascontiguousarray(hu[..., ::-1]), Side.LEFT)).node
    assert np.array_equal(right, again)
    assert right.shape == hu.shape
    assert len(np.unique(right)) > 100
    np.testing.assert_allclose(left[..., ::-1], right, atol=1e-5)


def test_nothing_is_seen_outside_the_search_region():
    region = np.zeros((100, 36, 40), bool)
    region[10:20, 5:30, 8:20] = region[60:90, 10:30, 2:30] = True
    detector = Detector(weights(), SETTINGS)
    found = detector.predict(grid_of(noise(region.shape), region=region)).node
    assert (found[~region] == 0).all()
    assert (found[region] > 0).all()
    assert not detector.predict(grid_of(noise(region.shape), region=np.zeros_like(region))).depth.any()


def test_the_network_is_given_the_region_and_what_surrounds_it():
    region = np.zeros((200, 50, 60), bool)
    region[3:190, 10:20, 30:41] = True
    core, box = boxes(region, 16)
    assert core == (slice(3, 190), slice(10, 20), slice(30, 41))
    for inner, outer in zip(core, box, strict=True):
        assert outer.start == inner.start - HALO
        assert outer.stop >= inner.stop + HALO
        assert (outer.stop - outer.start) % 16 == 0


@pytest.mark.usefixtures("float32")
def test_folding_the_batch_norms_changes_nothing():
    state = weights()
    for name in state:
        if name.endswith("running_mean"):
            state[name] = torch.linspace(-0.2, 0.3, len(state[name]))
        if name.endswith("running_var"):
            state[name] = torch.linspace(0.5, 2.0, len(state[name]))
    whole = AxillaNet(SETTINGS.channels)
    whole.load_state_dict(state)
    seen = inputs(torch.from_numpy(noise((16, 16, 16)))[None, None], torch.zeros(1, 3, 16, 16, 16))
    with torch.inference_mode():
        ours, theirs = Detector(state, SETTINGS).network(seen), whole.eval()(seen)
    assert ours.shape == (1, 2, 16, 16, 16)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("channels", [(4, 6), (4, 6, 8), (4, 6, 8, 10)])
@pytest.mark.parametrize("corner", [0, 1])
def test_the_parts_have_the_values_of_the_whole_network(channels, corner):
    torch.manual_seed(3)
    detector = Detector(AxillaNet(channels).state_dict(), DetectorSettings(channels=channels))
    region = np.zeros((130, 37, 44), bool)
    region[corner:80, corner:20, 10:15] = region[100 : 130 - corner, 15:30, 20 : 44 - corner] = True
    grid = grid_of(noise(region.shape), region=region)
    core, box = boxes(region, detector.network.multiple)
    hu = np.full([s.stop - s.start for s in box], FAT_HU, np.float32)
    inside = [slice(max(0, s.start), s.stop) for s in box]
    part = grid.hu[tuple(inside)]
    hu[tuple(slice(i.start - s.start, i.start - s.start + n) for i, s, n in zip(inside, box, part.shape, strict=True))] = part
    lines = [at + by * np.arange(s.start, s.stop) for (at, by), s in zip(grid.ramps, box, strict=True)]
    place = torch.from_numpy(np.stack(np.meshgrid(*lines, indexing="ij")).astype(np.float32))
    with torch.inference_mode():
        logits = detector.network(inputs(torch.from_numpy(hu)[None, None], place[None]))[0]
    expected = torch.sigmoid(logits).numpy()[(slice(None), *(slice(HALO, HALO + c.stop - c.start) for c in core))]
    found = detector.predict(grid)
    assert expected.std() > 0.001
    np.testing.assert_allclose(found.node[core], expected[NODE] * region[core], atol=1e-6)
    np.testing.assert_allclose(found.depth[core], expected[DEPTH] * region[core], atol=1e-6)


def candidate(mask, offset, grid):
    return Candidate(grid, mask, offset, -20.0)


def ball(radius):
    squares = sum(g**2 for g in np.ogrid[tuple(slice(-radius, radius + 1) for _ in range(3))])
    return np.asarray(squares) <= radius**2


def test_the_reading_that_the_network_outlines_scores_highest():
    grid = grid_of(noise())
    depth = np.zeros(grid.hu.shape, np.float32)
    inside = ndimage.distance_transform_edt(np.pad(ball(5), 1))[1:-1, 1:-1, 1:-1]
    for first in (6, 17):  # two nodes that touch
        depth[6:17, first : first + 11, 6:17] = np.maximum(depth[6:17, first : first + 11, 6:17], 0.9 * inside / inside.max())
    one, other = candidate(ball(5), (6, 6, 6), grid), candidate(ball(5), (6, 17, 6), grid)
    half = candidate(ball(3), (8, 8, 8), grid)
    union = np.zeros((11, 22, 11), bool)
    union[:, :11], union[:, 11:] = ball(5), ball(5)
    both = candidate(union, (6, 6, 6), grid)
    elsewhere = candidate(ball(3), (20, 5, 30), grid)
    found = ranking.candidate_scores([one, other, half, both, elsewhere], depth)
    assert found.shape == (5,)
    assert found[:2].min() > 0.75
    assert found[0] > found[2] + 0.2
    # Two balls that meet in a point are deepest where the network is, too: their union scores no more than a hundredth higher.
    assert found[3] < found[:2].min() + 0.01
    assert found[4] == 0
    assert ranking.candidate_scores([], depth).shape == (0,)


def test_a_piece_of_larger_soft_tissue_scores_less_than_a_node_in_fat():
    hu = np.full((30, 36, 40), -100, np.float32)
    node, piece = ball(5), ball(3)
    hu[6:17, 6:17, 6:17][node] = 40
    hu[2:28, 18:34, 18:34] = 30  # a muscle
    grid = grid_of(hu)
    apart, inside = candidate(node, (6, 6, 6), grid), candidate(piece, (12, 22, 22), grid)
    assert ranking.clearance(apart) == 1
    assert ranking.clearance(inside) == 0
    # Beside the cut surface of half a ball is soft tissue, beside the rest fat.
    assert 0.5 < ranking.clearance(candidate(node[:6], (6, 6, 6), grid)) < 0.9
    depth = np.zeros_like(hu)
    for one in (apart, inside):
        depth[tuple(slice(o, o + n) for o, n in zip(one.offset, one.mask.shape, strict=True))][one.mask] = 0.5
    scores = ranking.candidate_scores([apart, inside], depth)
    assert scores[0] > 0.3
    assert scores[1] == 0


@pytest.mark.parametrize(
    ("below_dm", "depth", "least", "most"),
    [(0.3, 0.2, 0.99, 1), (0.95, 0.4, 0.99, 1), (1.2, 0.2, 0, 0.05), (1.2, 0.5, 0.8, 1), (1.6, 0.5, 0, 0.01)],
)
def test_in_front_the_axilla_ends_higher_than_further_back(below_dm, depth, least, most):
    assert least <= float(axillary(below_dm, depth)) <= most


class Bundle:
    def __init__(self, settings, tensors):
        self.detector_settings = settings
        self._file = save(tensors)

    def weights(self, name):
        assert name == "detector"
        return self._file


def test_a_bundle_gives_its_detector_in_half_precision_too():
    state = {name: t.half() if t.is_floating_point() else t for name, t in weights().items()}
    settings = DetectorSettings(channels=SETTINGS.channels, threshold=0.3)
    detector = Detector.from_bundle(Bundle(settings.to_dict(), state))
    assert detector.settings == settings
    assert detector.predict(grid_of(noise())).depth.dtype == np.float32


@pytest.mark.parametrize(
    ("settings", "state"),
    [
        (None, {}),
        (SETTINGS.to_dict(), {}),
        (SETTINGS.to_dict(), {"unknown": torch.zeros(3)}),
        ({**SETTINGS.to_dict(), "channels": [8, 8, 8]}, weights()),
        ({**SETTINGS.to_dict(), "channels": "many"}, weights()),
        ({**SETTINGS.to_dict(), "channels": [4000, 6, 8]}, weights()),
        ({**SETTINGS.to_dict(), "threshold": 7}, weights()),
        ({**SETTINGS.to_dict(), "surprise": 1}, weights()),
    ],
)
def test_a_damaged_bundle_is_refused(settings, state):
    with pytest.raises(BundleError):
        Detector.from_bundle(Bundle(settings, state))
