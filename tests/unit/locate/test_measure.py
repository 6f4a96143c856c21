"""Measurements of masks whose size is known."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import Dataset

from alnnode.locate.measure import MAX_CONTOUR_POINTS, _axis, node_from_mask, short_axis_mm
from alnnode.records import NodeSource, Side, Volume


def volume(shape=(20, 80, 90), spacing=(2.0, 0.7, 0.7)) -> Volume:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1.0
    return Volume(np.full(shape, -100, np.int16), affine, (), Dataset(), spacing)


def ellipsoid(shape, spacing, centre, semi, angle):
    """Mask of an ellipsoid with semi-axes (z, long, short) mm, its long axis ``angle`` from the columns' direction."""
    z, y, x = ((np.arange(n) - c) * d for n, c, d in zip(shape, centre, spacing, strict=True))
    z, y, x = np.meshgrid(z, y, x, indexing="ij")
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (z / semi[0]) ** 2 + (along / semi[1]) ** 2 + (across / semi[2]) ** 2 <= 1


@pytest.mark.parametrize("angle", [0.0, 0.5, 1.2, 2.5])
@pytest.mark.parametrize("spacing", [(2.0, 0.7, 0.7), (1.0, 0.5, 0.9), (3.0, 0.9, 0.6)])
def test_axes_of_an_ellipsoid_are_right_in_millimetres(angle, spacing):
    v = volume(spacing=spacing)
    mask = ellipsoid(v.voxels.shape, spacing, (9, 40, 45), (7, 9, 5), angle)
    v.voxels[mask] = 45
    node = node_from_mask(v, mask, (0, 0, 0), Side.LEFT, 3)
    assert node.long_axis.length_mm == pytest.approx(18, abs=1.0)
    assert node.short_axis.length_mm == pytest.approx(10, abs=1.0)
    assert node.short_axis.length_mm == pytest.approx(short_axis_mm(mask, spacing), abs=0.01)
    assert node.volume_mm3 == pytest.approx(4 / 3 * np.pi * 7 * 9 * 5, rel=0.05)
    assert (node.slice_index, node.number, node.side, node.score) == (9, 3, Side.LEFT, 1.0)
    assert node.attenuation.mean == 45
    assert node.attenuation.deviation == 0
    assert node.source is NodeSource.ALGORITHM


def test_axes_are_perpendicular_and_their_ends_have_their_length():
    spacing = (1.0, 0.5, 0.9)
    v = volume(spacing=spacing)
    node = node_from_mask(v, ellipsoid(v.voxels.shape, spacing, (9, 40, 45), (7, 9, 5), 0.8), (0, 0, 0), Side.LEFT, 1)
    directions = []
    for axis in (node.long_axis, node.short_axis):
        d = (np.array(axis.end) - axis.start) * (spacing[2], spacing[1])
        assert np.linalg.norm(d) == pytest.approx(axis.length_mm, abs=0.02)
        directions.append(d / np.linalg.norm(d))
    assert abs(directions[0] @ directions[1]) < 0.01


def test_sub_volume_gives_the_same_as_the_whole():
    v = volume()
    mask = ellipsoid(v.voxels.shape, v.spacing, (9, 40, 45), (7, 9, 5), 0.3)
    whole = node_from_mask(v, mask, (0, 0, 0), Side.RIGHT, 1)
    part = node_from_mask(v, mask[4:16, 20:60, 25:70], (4, 20, 25), Side.RIGHT, 1)
    assert part == whole
    rows, columns = np.nonzero(mask[whole.slice_index])
    assert (whole.box.j0, whole.box.j1, whole.box.i0, whole.box.i1) == (
        rows.min(),
        rows.max() + 1,
        columns.min(),
        columns.max() + 1,
    )


def test_contour_is_short_and_encloses_the_mask():
    v = volume((3, 200, 200), (1.0, 0.7, 0.7))
    y, x = np.ogrid[:200, :200]
    angle = np.arctan2(y - 100, x - 100)
    star = np.hypot(y - 100, x - 100) < 50 + 12 * np.cos(9 * angle)
    node = node_from_mask(v, star[None], (1, 0, 0), Side.RIGHT, 1)
    points = np.array(node.contour)
    assert 12 <= len(points) <= MAX_CONTOUR_POINTS
    assert tuple(points[0]) != tuple(points[-1])
    nxt = np.roll(points, -1, axis=0)
    area = abs(np.sum(points[:, 0] * nxt[:, 1] - nxt[:, 0] * points[:, 1])) / 2
    assert area == pytest.approx(star.sum(), rel=0.05)
    # Image coordinates: half a pixel off the voxel centres' coordinates.
    assert points[:, 0].mean() == pytest.approx(100.5, abs=2.5)


@pytest.mark.parametrize("corner", [(0, 0), (79, 89)])
def test_a_node_at_the_border_stays_inside_the_image(corner):
    v = volume()
    mask = np.zeros(v.voxels.shape, bool)
    j, i = corner
    mask[5, max(0, j - 6) : j + 7, max(0, i - 6) : i + 7] = True
    node = node_from_mask(v, mask, (0, 0, 0), Side.LEFT, 1)
    points = np.array([*node.contour, node.long_axis.start, node.long_axis.end, node.short_axis.start, node.short_axis.end])
    assert points.min() >= 0
    assert (points[:, 0] <= 90).all()
    assert (points[:, 1] <= 80).all()


@pytest.mark.parametrize("extent", [(1, 1), (1, 5), (2, 2)])
def test_the_smallest_masks_can_be_measured(extent):
    v = volume(spacing=(1.0, 1.0, 1.0))
    mask = np.zeros(v.voxels.shape, bool)
    mask[3, 10 : 10 + extent[0], 20 : 20 + extent[1]] = True
    node = node_from_mask(v, mask, (0, 0, 0), Side.LEFT, 1)
    assert 0 < node.short_axis.length_mm <= node.long_axis.length_mm
    assert len(node.contour) >= 3
    assert node.volume_mm3 == pytest.approx(extent[0] * extent[1])


def test_of_two_pieces_the_larger_is_outlined():
    v = volume(spacing=(1.0, 1.0, 1.0))
    mask = np.zeros(v.voxels.shape, bool)
    mask[3, 10:20, 20:30] = True
    mask[3, 50:53, 60:63] = True
    node = node_from_mask(v, mask, (0, 0, 0), Side.LEFT, 1)
    assert np.array(node.contour)[:, 0].max() <= 30


def test_empty_and_outlying_masks_are_refused():
    v = volume()
    with pytest.raises(ValueError, match="empty"):
        node_from_mask(v, np.zeros((2, 2, 2), bool), (0, 0, 0), Side.LEFT, 1)
    with pytest.raises(ValueError, match="beyond"):
        node_from_mask(v, np.ones((2, 2, 2), bool), (19, 0, 0), Side.LEFT, 1)


@pytest.mark.parametrize(("exact", "shown"), [(11.046, "11.0"), (4.0531, "4.1"), (9.9496, "9.9")])
def test_a_length_is_rounded_once(exact, shown):
    """11.046 mm was stored as 11.05 mm: texts showed 11.1, and viewers that measure between the ends 11.0."""
    axis = _axis(np.array([0.0, 0.0]), np.array([0.0, exact]), exact)
    assert f"{axis.length_mm:.1f}" == shown
