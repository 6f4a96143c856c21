"""The fatty hilum and the cortex: on ellipsoids of known size, and on phantoms whose truth knows both."""

import numpy as np
import pytest

from alnnode import phantom
from alnnode.locate.hilum import find_hilum

SPACING = (1.0, 0.7, 0.7)
SETTINGS = phantom.PhantomSettings(
    size=256, slices=(80, 80), thickness_mm=(1.5, 1.5), spacing_mm=(1.4, 1.4), min_nodes_per_side=6
)


def shells(outer: float, inner: float, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return HU, the mask of a sphere and the mask of the fat inside it; radii in mm."""
    z, y, x = (np.arange(n) * d - n * d / 2 for n, d in zip((40, 56, 56), SPACING, strict=True))
    radius = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
    # Half a millimetre of blur at both borders, as a scanner gives.
    soft = np.clip((outer - radius) / 1.0 + 0.5, 0, 1) * np.clip((radius - inner) / 1.0 + 0.5, 0, 1)
    hu = -100 + 150 * soft + np.random.default_rng(3).normal(0, noise, radius.shape)
    return hu.astype(np.int16), radius < outer, radius < inner


@pytest.mark.parametrize("noise", [0.0, 15.0])
@pytest.mark.parametrize(("outer", "inner"), [(8.0, 4.0), (8.0, 6.0), (10.0, 5.0), (6.0, 3.0)])
def test_fraction_and_thickness_of_a_shell(outer: float, inner: float, noise: float) -> None:
    hu, mask, fat = shells(outer, inner, noise)
    found = find_hilum(hu, mask, SPACING)
    assert found is not None
    assert found.fraction == pytest.approx(fat.sum() / mask.sum(), abs=0.06)
    assert found.cortex_mm == pytest.approx(outer - inner, abs=0.8)


def test_a_solid_node_has_no_hilum() -> None:
    hu, mask, _ = shells(8.0, 0.0, 20.0)
    hu[mask] = np.random.default_rng(4).normal(45, 20, int(mask.sum())).astype(np.int16)
    assert find_hilum(hu, mask, SPACING) is None


def test_phantoms_agree_with_their_truth() -> None:
    """A hilum is never seen where there is none; where one is seen, the cortex is right within a voxel."""
    errors, false, large = [], 0, []
    for index in range(3):
        made = phantom.make_patient(60610, index, SETTINGS)
        for node in made.nodes:
            box = tuple(slice(max(0, a - 2), b + 2) for a, b in zip(node.box.low, node.box.high, strict=True))
            found = find_hilum(made.hu[box], made.labels[box] == node.number, made.spacing)
            if not node.hilum:
                false += found is not None
                continue
            if node.short_axis_mm >= 9:
                large.append(found is not None)
            if found is not None:
                errors.append(abs(found.cortex_mm - node.cortex_mm))
    assert false == 0
    assert len(errors) >= 5
    assert np.mean(errors) < 0.8
    assert np.mean(large) >= 0.8
