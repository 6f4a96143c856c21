"""Phantoms are the same on every run, and their truth agrees with their voxels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from alnnode.phantom import Arms, PhantomError, PhantomSettings, Phase, Position, make_patient
from alnnode.phantom.measure import diameters
from alnnode.phantom.node_plan import NodePlan, plan_node
from alnnode.phantom.patient_parameters import sample_patient
from alnnode.records import Side

SMALL = PhantomSettings(size=256, slices=(40, 40), thickness_mm=(3.0, 3.0), spacing_mm=(1.4, 1.5), min_nodes_per_side=3)


@pytest.fixture(scope="module")
def patient():
    return make_patient(11, 2, SMALL)


def test_the_same_seed_gives_the_same_patient(patient) -> None:
    again = make_patient(11, 2, SMALL)
    np.testing.assert_array_equal(again.hu, patient.hu)
    np.testing.assert_array_equal(again.labels, patient.labels)
    assert again.nodes == patient.nodes


@pytest.mark.parametrize(("seed", "index"), [(12, 2), (11, 3)])
def test_another_seed_or_index_gives_another_patient(patient, seed: int, index: int) -> None:
    assert not np.array_equal(make_patient(seed, index, SMALL).hu, patient.hu)


def test_truth_agrees_with_the_labels(patient) -> None:
    assert [node.number for node in patient.nodes] == list(range(1, len(patient.nodes) + 1))
    assert set(np.unique(patient.labels)) == set(range(len(patient.nodes) + 1))
    for node in patient.nodes:
        k, j, i = np.nonzero(patient.labels == node.number)
        box = node.box
        assert (box.k0, box.j0, box.i0) == (k.min(), j.min(), i.min())
        assert (box.k1, box.j1, box.i1) == (k.max() + 1, j.max() + 1, i.max() + 1)
        areas = np.bincount(k)
        assert areas[node.slice_index] == areas.max()
        assert node.mean_hu == pytest.approx(patient.hu[k, j, i].mean(), abs=0.01)
        centre = patient.affine @ [k.mean(), j.mean(), i.mean(), 1]
        assert centre[:3] == pytest.approx(node.centre_mm, abs=0.01)


def test_nodes_are_numbered_right_first_and_from_the_head_down(patient) -> None:
    order = [(node.side is Side.LEFT, -node.centre_mm[2]) for node in patient.nodes]
    # The centre of a mask may differ from the planned centre by part of a slice.
    assert [side for side, _ in order] == sorted(side for side, _ in order)
    for (side, z), (next_side, next_z) in pairwise(order):
        assert side != next_side or next_z > z - 3.0


@pytest.mark.parametrize("position", list(Position))
def test_left_is_left_in_every_position(position: Position) -> None:
    made = make_patient(5, 1, PhantomSettings(**{**_as_dict(SMALL), "position": position}))
    sides = {node.side for node in made.nodes}
    assert sides == {Side.LEFT, Side.RIGHT}
    for node in made.nodes:
        assert (node.centre_mm[0] > 0) == (node.side is Side.LEFT)
    # The descending aorta lies left of the spine in every position.
    assert _aorta_is_left(made)


def _as_dict(settings: PhantomSettings) -> dict:
    return {name: getattr(settings, name) for name in settings.__slots__}


def _aorta_is_left(made) -> bool:
    """Compare the soft tissue left and right of the spine, below the aortic arch, in patient coordinates."""
    shape = made.hu.shape
    k, j, i = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    a = made.affine
    x = a[0, 2] * i + a[0, 3]
    y = a[1, 1] * j + a[1, 3]
    z = a[2, 0] * k + a[2, 3]
    x0, y0 = made.patient.shift
    here = (np.abs(z + 20) < 15) & (np.abs(y - y0 - 38) < 6)
    tissue = (made.hu > 0) & (made.hu < 350)
    left = np.count_nonzero(here & tissue & (x > x0 + 18) & (x < x0 + 28))
    right = np.count_nonzero(here & tissue & (x < x0 - 18) & (x > x0 - 28))
    return left > 2 * right + 20


def test_a_prone_patient_is_stored_rotated() -> None:
    lying = make_patient(5, 1, PhantomSettings(**{**_as_dict(SMALL), "position": Position.HFP}))
    assert lying.affine[0, 2] < 0
    assert lying.affine[1, 1] < 0
    assert lying.affine[2, 0] > 0


def test_nodes_lie_in_fat_and_apart_from_each_other(patient) -> None:
    for node in patient.nodes:
        shell = _shell(patient.labels == node.number)
        assert np.median(patient.hu[shell]) < -20
        touching = patient.labels[shell]
        assert np.mean(touching > 0) < 0.02


def _shell(mask: np.ndarray) -> np.ndarray:
    grown = np.zeros_like(mask)
    for axis in (1, 2):
        for step in (-2, 2):
            grown |= np.roll(mask, step, axis)
    return grown & ~mask


def test_every_node_keeps_voxels_of_its_own_where_a_small_one_would_lie_in_the_hilum_of_a_large_one() -> None:
    made = make_patient(990001, 15, PhantomSettings(min_nodes_per_side=7, slices=(60, 60)))
    assert len(made.nodes) > 10
    assert set(np.unique(made.labels)) == set(range(len(made.nodes) + 1))


def test_settings_are_applied() -> None:
    made = make_patient(
        1,
        0,
        PhantomSettings(
            size=128,
            slices=(10, 10),
            thickness_mm=(2.0, 2.0),
            spacing_mm=(3.0, 3.0),
            max_nodes_per_side=0,
            position=Position.FFS,
            arms=Arms.DOWN,
            phase=Phase.ARTERIAL,
            noise_hu=0.0,
            metastatic=False,
            padding=False,
        ),
    )
    assert made.hu.shape == (10, 128, 128)
    assert made.spacing == (2.0, 3.0, 3.0)
    assert made.nodes == ()
    assert not made.labels.any()
    assert (made.patient.position, made.patient.arms, made.patient.phase) == (Position.FFS, Arms.DOWN, Phase.ARTERIAL)
    assert (made.hu[:, 0, 0] == -1000).all()


def test_tissues_have_their_attenuation() -> None:
    settings = {**_as_dict(SMALL), "position": Position.HFS, "padding": True, "phase": Phase.NONE}
    made = make_patient(3, 0, PhantomSettings(**settings))
    counts, edges = np.histogram(made.hu, bins=np.arange(-1024, 400, 8))

    def peak(low: int, high: int) -> float:
        here = (edges[:-1] >= low) & (edges[:-1] < high)
        return float(edges[:-1][here][np.argmax(counts[here])])

    assert -125 < peak(-160, -40) < -75  # fat
    assert 30 < peak(0, 100) < 75  # muscle
    assert -900 < peak(-930, -600) < -820  # lung
    assert made.hu[0, 0, 0] == -1024  # padding outside the field of view
    assert made.hu.max() > 500  # bone


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 511},
        {"slices": (0, 10)},
        {"slices": (20, 10)},
        {"thickness_mm": (0.0, 1.0)},
        {"spacing_mm": (0.6, 40.0)},
        {"max_nodes_per_side": 13},
        {"min_nodes_per_side": 5, "max_nodes_per_side": 4},
        {"noise_hu": -1.0},
    ],
)
def test_impossible_settings_are_refused_by_name(wrong: dict) -> None:
    name = next(iter(wrong)).removeprefix("max_").removeprefix("min_").replace("nodes_per_side", "nodes per side")
    with pytest.raises(PhantomError, match=name):
        PhantomSettings(**wrong)


def test_diameters_of_an_ellipse() -> None:
    y, x = np.mgrid[-40:41, -40:41]
    turned = np.deg2rad(30)
    p, q = x * np.cos(turned) + y * np.sin(turned), y * np.cos(turned) - x * np.sin(turned)
    long_axis, short_axis = diameters((p / 30) ** 2 + (q / 15) ** 2 <= 1, 0.5)
    assert long_axis == pytest.approx(30.5, abs=0.5)
    assert short_axis == pytest.approx(15.5, abs=0.5)


@pytest.fixture(scope="module")
def plans() -> tuple[list[NodePlan], list[NodePlan]]:
    """Return plans of benign and of metastatic nodes of a patient without contrast."""
    rng = np.random.default_rng(1)
    patient = sample_patient(rng, PhantomSettings(phase=Phase.NONE))
    return [plan_node(rng, False, patient) for _ in range(3000)], [plan_node(rng, True, patient) for _ in range(3000)]


def _auroc(benign: list[float], metastatic: list[float]) -> float:
    return float(mannwhitneyu(metastatic, benign).statistic / (len(benign) * len(metastatic)))


def test_cortex_and_hilum_follow_the_published_figures(plans) -> None:
    benign, metastatic = plans
    # 2.6 +- 2.8 mm against 7.5 +- 5.0 mm (PMC6331431); lost hilum, odds ratio 5.4. The phantoms approximate them: docs/phantom.md.
    assert np.mean([p.cortex for p in benign]) == pytest.approx(2.6, abs=0.6)
    assert np.mean([p.cortex for p in metastatic]) == pytest.approx(7.5, abs=0.9)
    assert np.std([p.cortex for p in metastatic]) == pytest.approx(5.0, abs=1.0)
    lost = [np.mean([not p.hilum for p in group]) for group in plans]
    odds = [share / (1 - share) for share in lost]
    assert 4.0 < odds[1] / odds[0] < 7.0


def test_no_single_property_separates_the_classes(plans) -> None:
    benign, metastatic = plans
    assert 0.70 < _auroc([p.semi[2] for p in benign], [p.semi[2] for p in metastatic]) < 0.85
    for measure in (
        lambda p: p.cortex,
        lambda p: p.cortex_hu,
        lambda p: -p.semi[0] / p.semi[2],
        lambda p: p.lobulation,
        lambda p: p.stranding,
        lambda p: p.spiculation,
        lambda p: p.eccentric,
    ):
        assert 0.6 < _auroc([measure(p) for p in benign], [measure(p) for p in metastatic]) < 0.95


def test_sizes_stay_within_what_is_documented(plans) -> None:
    for group in plans:
        sizes = [2 * p.semi[2] for p in group]
        assert min(sizes) >= 4.0
        assert max(sizes) <= 25.0
        assert all(p.semi[0] >= p.semi[1] >= p.semi[2] for p in group)


def test_thick_slices_and_coarse_pixels_still_outline_every_node() -> None:
    settings = PhantomSettings(size=96, slices=(18, 18), thickness_mm=(10.0, 10.0), spacing_mm=(4.0, 4.0), min_nodes_per_side=4)
    made = [make_patient(8, index, settings) for index in range(4)]
    assert sum(len(patient.nodes) for patient in made) > 8
    assert all(node.volume_mm3 > 0 for patient in made for node in patient.nodes)
