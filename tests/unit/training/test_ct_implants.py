"""Nodes implanted into a CT: groups touch, excluded voxels stay free, and blur, noise and contrast of the CT are measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from alnnode.locate import anatomy
from alnnode.locate.grid import Frame, coarsen
from alnnode.phantom import Arms, PhantomSettings, Phase, Position, make_patient
from alnnode.records import Side, Volume
from training.data import ct_properties
from training.data.cohort import as_volume
from training.data.ct_implants import GroupSettings, ImplantedCt, implant_nodes
from training.data.prepared_ct import PreparedCt

SETTINGS = PhantomSettings(
    size=256,
    slices=(70, 70),
    thickness_mm=(2.5, 2.5),
    spacing_mm=(1.4, 1.5),
    max_nodes_per_side=0,
    position=Position.HFP,  # both in-plane axes of the source are flipped
    arms=Arms.UP,
    phase=Phase.VENOUS,
    noise_hu=18.0,
)


@pytest.fixture(scope="module")
def source() -> Volume:
    return as_volume(make_patient(31, 0, SETTINGS))


@pytest.fixture(scope="module")
def prepared(source: Volume) -> PreparedCt:
    return PreparedCt.from_volume(source)


@pytest.fixture(scope="module")
def clusters(prepared: PreparedCt) -> ImplantedCt:
    return implant_nodes(prepared, 3, 3, GroupSettings(clusters=1.0))


def test_the_same_arguments_give_the_same_volume(prepared: PreparedCt, clusters: ImplantedCt) -> None:
    again = implant_nodes(prepared, 3, 3, GroupSettings(clusters=1.0))
    np.testing.assert_array_equal(again.volume.voxels, clusters.volume.voxels)
    np.testing.assert_array_equal(again.labels, clusters.labels)
    assert again.nodes == clusters.nodes


def test_members_of_a_group_touch_and_groups_do_not_share_voxels(clusters: ImplantedCt) -> None:
    groups: dict[int, list[int]] = {}
    for node in clusters.nodes:
        groups.setdefault(node.group, []).append(node.number)
    assert len(groups) >= 3
    for members in groups.values():
        assert len(members) >= 2
        mask = ndimage.binary_dilation(np.isin(clusters.labels, members), np.ones((3, 3, 3)))
        assert ndimage.label(mask)[1] == 1
    assert set(np.unique(clusters.labels)) == {0, *(node.number for node in clusters.nodes)}


def test_no_node_is_implanted_on_excluded_voxels(source: Volume, prepared: PreparedCt) -> None:
    columns = np.arange(source.voxels.shape[2])
    x = source.affine[0, 2] * columns + source.affine[0, 3]
    right = np.broadcast_to(x < 0, source.voxels.shape)
    made = implant_nodes(prepared, 4, 3, GroupSettings(), exclude=right)
    assert made.nodes
    assert {node.side for node in made.nodes} == {Side.LEFT}
    assert {node.side for node in implant_nodes(prepared, 4, 3, GroupSettings()).nodes} == {Side.LEFT, Side.RIGHT}


def test_contact_is_allowed_only_when_asked_for(prepared: PreparedCt) -> None:
    soft = {}
    for touching in (0.0, 1.0):
        parts = []
        for seed in range(4):
            made = implant_nodes(prepared, seed, 4, GroupSettings(clusters=0.0, touching=touching))
            parts += [float(np.mean(prepared.smooth[made.labels == node.number] > -20)) for node in made.nodes]
        soft[touching] = max(parts)
    assert soft[0.0] < 0.08
    assert 0.08 < soft[1.0] < 0.45


def test_no_group_reaches_the_skin_or_the_lung(prepared: PreparedCt) -> None:
    for seed in range(6):
        made = implant_nodes(prepared, seed, 4, GroupSettings(touching=1.0))
        assert made.nodes
        near = ndimage.distance_transform_edt(made.labels == 0, sampling=prepared.frame.spacing) < 2.0
        assert prepared.smooth[near].min() > -300


def test_a_node_has_the_noise_of_its_surroundings(prepared: PreparedCt) -> None:
    made = as_volume(make_patient(31, 0, replace(SETTINGS, noise_hu=0.0)))
    hu = prepared.frame.canonical(made.voxels)
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), [0.8 / d for d in made.spacing], truncate=2.5)
    still = replace(prepared, hu=hu, smooth=smooth, measured=replace(prepared.measured, missing_noise_hu=0.0))
    inside, outside = [], []
    for seed in range(8):
        noisy, quiet = (implant_nodes(ct, seed, 4, GroupSettings(clusters=0.0, touching=0.0)) for ct in (prepared, still))
        same = (noisy.labels > 0) & (noisy.labels == quiet.labels)  # noise may have moved a node
        inside.append((noisy.volume.voxels - quiet.volume.voxels)[same])
        outside.append((prepared.hu - still.hu)[same])
    assert sum(len(values) for values in inside) > 300
    assert np.concatenate(inside).std() == pytest.approx(
        np.concatenate(outside).std(), rel=0.3
    )  # without the added noise it is 0.37 of it


@pytest.mark.parametrize("phase", [Phase.NONE, Phase.VENOUS])
def test_the_contrast_phase_follows_from_the_blood_between_the_lungs(phase: Phase) -> None:
    made = as_volume(make_patient(31, 1, replace(SETTINGS, phase=phase)))
    coarse = coarsen(Frame.of(made).canonical(made.voxels), Frame.of(made).spacing)
    chest = anatomy.find_chest(coarse)
    assert chest is not None
    assert ct_properties.contrast_phase(coarse, chest) is phase


def test_a_blurred_ct_has_wider_edges() -> None:
    made = as_volume(make_patient(31, 3, PhantomSettings(size=512, slices=(12, 12), thickness_mm=(3.0, 3.0), arms=Arms.UP)))
    hu, spacing = np.ascontiguousarray(Frame.of(made).canonical(made.voxels)), made.spacing
    sharp = ct_properties.edge_width(hu, spacing)
    wide = ct_properties.edge_width(ndimage.gaussian_filter(hu.astype(np.float32), [0, 0.6, 0.6]).astype(np.int16), spacing)
    assert sharp > 0.8
    assert wide > sharp + 0.3
    assert ct_properties.edge_width(np.full_like(hu, -100), spacing) == ct_properties.UNKNOWN_CT.edge_width_mm


def test_the_noise_that_a_node_lacks_follows_the_noise_of_the_ct() -> None:
    kept = []
    for noise in (5.0, 25.0):
        made = as_volume(make_patient(31, 2, replace(SETTINGS, noise_hu=noise)))
        hu = Frame.of(made).canonical(made.voxels)
        smooth = ndimage.gaussian_filter(hu.astype(np.float32), [0.8 / d for d in made.spacing], truncate=2.5)
        kept.append(ct_properties.missing_noise(hu, smooth, made.spacing))
    assert 0 < kept[0] < kept[1]
