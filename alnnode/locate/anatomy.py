"""Where the axillae are: body, lungs, chest wall and, lateral of it, the fat between pectoral and latissimus muscles.

Everything here runs on a coarse grid (about 2 x 2 x 2.5 mm) in the canonical frame (y to the back, x to the left).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

from alnnode.records import AxillaCoverage, Side

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import Coarse, FloatVolume, Mask

AIR_HU = -300.0  # half way between skin and air, a little low: keeps thin skin folds
LUNG_HU = -400.0
SOFT_HU = -20.0  # half way between fat (-100) and muscle (55)
MIN_LUNG_ML = 60.0
AXILLA_BELOW_APEX_MM = 175.0  # the lowest nodes of level I lie beside the fifth rib
BREAST_BELOW_APEX_MM = 125.0  # from here down what lies in front is breast
AXILLA_ABOVE_APEX_MM = 5.0
SHOULDER_MM = 35.0  # below the apex the rib cage is wide: what lies medial of it higher up is neck
LATERAL_MM = 85.0  # reach of the axilla from the chest wall
VISIBLE_LATERAL_MM = 50.0  # less than this between chest wall and image edge: cut off
OPEN_TOP_MM2 = 4500.0  # lung of one side in the uppermost slice: above it there is still axilla
MIN_EXTENT_MM = 70.0  # of the axilla's height that must lie in the series


@dataclass(frozen=True, slots=True)
class Axilla:
    """Search region of one side on the coarse grid: ``mask`` covers the whole coarse volume."""

    side: Side
    mask: Mask
    coverage: AxillaCoverage


@dataclass(frozen=True, slots=True)
class Chest:
    """The landmarks on the coarse grid.

    Attributes:
        body: the patient without table and air.
        thorax: per slice, the hull of both lungs (one lung mirrored where the other is collapsed).
        midline: x index of the mid-sagittal plane.
        apex: z index of the highest lung slice.
    """

    body: Mask
    thorax: Mask
    midline: float
    apex: int


def body_mask(hu: FloatVolume, spacing: tuple[float, float, float]) -> Mask:
    """The patient: the largest thing denser than air that a 6 mm opening leaves, holes (lungs) filled per slice."""
    disk = _disk(6.0 / spacing[1])
    dense = hu > AIR_HU
    opened = np.stack([ndimage.binary_opening(plane, disk) for plane in dense])
    labels, count = ndimage.label(opened)
    if count == 0:
        return np.zeros(hu.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body = labels == int(sizes.argmax())
    return np.stack([ndimage.binary_fill_holes(plane) for plane in body])


def lung_mask(hu: FloatVolume, body: Mask, spacing: tuple[float, float, float]) -> Mask:
    """Air inside the body, in pieces of at least `MIN_LUNG_ML`; the trachea is cut off by a 5 mm opening."""
    air = body & (hu < LUNG_HU)
    opened = np.stack([ndimage.binary_opening(plane, _disk(5.0 / spacing[1])) for plane in air])
    labels, _ = ndimage.label(opened)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.isin(labels, np.flatnonzero(sizes * np.prod(spacing) / 1000 >= MIN_LUNG_ML))


def find_chest(coarse: Coarse) -> Chest | None:
    """Find the landmarks, or None when no lungs can be seen."""
    body = body_mask(coarse.hu, coarse.spacing)
    lungs = lung_mask(coarse.hu, body, coarse.spacing)
    area = lungs.sum(axis=(1, 2)) * coarse.spacing[1] * coarse.spacing[2]
    present = np.flatnonzero(area > 300.0)
    if present.size == 0:
        return None
    midline = _midline(body, lungs, area)
    thorax = np.zeros_like(body)
    for z in present:
        thorax[z] = _hull(lungs[z], midline, coarse.spacing) & body[z]
    return Chest(body, thorax, midline, int(present[-1]))


def _midline(body: Mask, lungs: Mask, area: npt.NDArray[np.float64]) -> float:
    """Mid-sagittal x: median over the slices with most lung of the middle between the outer lung borders."""
    middles = []
    for z in np.flatnonzero(area >= 0.5 * area.max()):
        body_x = np.flatnonzero(body[z].any(axis=0))
        lung_x = np.flatnonzero(lungs[z].any(axis=0))
        lung_middle = (lung_x[0] + lung_x[-1]) / 2
        body_middle = (body_x[0] + body_x[-1]) / 2
        # One lung alone (the other collapsed) would put the middle inside it.
        one_sided = lung_x[-1] < body_middle or lung_x[0] > body_middle
        middles.append(body_middle if one_sided else lung_middle)
    return float(np.median(middles))


def _hull(lung: Mask, midline: float, spacing: tuple[float, float, float]) -> Mask:
    """Convex hull of the lungs of one slice; a side that shows less than half of the other is mirrored."""
    xs = np.arange(lung.shape[1])
    right, left = lung[:, xs < midline].sum(), lung[:, xs >= midline].sum()
    both = lung
    if min(right, left) < 0.5 * max(right, left):
        mirrored_x = np.rint(2 * midline - xs).astype(int)
        inside = (mirrored_x >= 0) & (mirrored_x < lung.shape[1])
        mirrored = np.zeros_like(lung)
        mirrored[:, inside] = lung[:, mirrored_x[inside]]
        both = lung | mirrored
    if both.sum() * spacing[1] * spacing[2] < 100.0:
        return both
    hull: Mask = convex_hull_image(both)
    return hull


def find_axillae(coarse: Coarse, chest: Chest) -> tuple[Axilla, Axilla]:
    """Search regions and coverage, right then left."""
    dz = coarse.spacing[0]
    first = max(0, chest.apex - round(AXILLA_BELOW_APEX_MM / dz))
    last = min(coarse.hu.shape[0] - 1, chest.apex + round(AXILLA_ABOVE_APEX_MM / dz))
    region = np.zeros_like(chest.body)
    front, back = thorax_depth(chest, first)
    visible = inner_field_of_view(coarse)
    for z in range(first, last + 1):
        # Above the apex the last hull stands in for the chest wall.
        thorax = chest.thorax[min(z, chest.apex)]
        cage = chest.thorax[max(first, min(z, chest.apex - round(SHOULDER_MM / dz)))]
        height = float(np.clip(1 - (chest.apex - z) * dz / BREAST_BELOW_APEX_MM, 0, 1))
        region[z] = _slice_region(coarse, chest.body[z], thorax, (front, back), height, z) & _lateral(cage) & visible
    xs = np.arange(coarse.hu.shape[2])
    axillae = []
    for side, half in ((Side.RIGHT, xs < chest.midline), (Side.LEFT, xs >= chest.midline)):
        mask = region & half[None, None, :]
        axillae.append(Axilla(side, mask, _coverage(coarse, chest, side, half, (first, last))))
    return axillae[0], axillae[1]


def thorax_depth(chest: Chest, first: int) -> tuple[int, int]:
    """Front and back row of the thorax in the lower part of the search region, where it is widest."""
    rows = np.flatnonzero(chest.thorax[first : chest.apex + 1].any(axis=(0, 2)))
    return int(rows[0]), int(rows[-1])


def _slice_region(coarse: Coarse, body: Mask, thorax: Mask, depth: tuple[int, int], height: float, z: int) -> Mask:
    """The axillary compartment of one slice: what muscle encloses, lateral of the ribs, away from the skin.

    ``height`` is 1 at the lung apex and 0 from `BREAST_BELOW_APEX_MM` down.
    """
    spacing = coarse.spacing[1:]
    if not thorax.any():
        return np.zeros_like(body)
    front, back = depth
    from_thorax = ndimage.distance_transform_edt(~thorax, spacing)
    # A border of the image is not skin: pad with body, so that a cut-off patient keeps the axilla.
    from_skin = ndimage.distance_transform_edt(np.pad(body, 1, mode="edge"), spacing)[1:-1, 1:-1]
    muscle = body & ~thorax & (coarse.hu[z] > SOFT_HU) & (from_skin > 6.0)
    muscle = ndimage.binary_opening(muscle, _disk(4.0 / spacing[0]))
    enclosed = _closing(muscle, 34.0, spacing)
    # Along the chest wall lie nodes even where no muscle closes the fat off towards the side.
    compartment = (ndimage.distance_transform_edt(~enclosed, spacing) < 28.0) | (from_thorax < 30.0)
    # Low down the front is breast; towards the apex the axilla (levels II and III) comes to lie in front of the lung.
    limit_front = front + np.interp(height, (0.0, 0.35, 1.0), (0.12, 0.08, 0.0)) * (back - front)
    limit_back = front + 0.76 * (back - front)
    rows = np.arange(body.shape[0])
    band = ((rows >= limit_front) & (rows <= limit_back))[:, None]
    reach = (from_thorax > 4.0) & (from_thorax < LATERAL_MM) & (from_skin > 4.0)
    region: Mask = compartment & _trunk(body, thorax, spacing) & band & reach
    return region


def _lateral(cage: Mask) -> Mask:
    """Columns lateral of the rib cage, or at most an eighth of its width medial of its border (levels II and III)."""
    columns = np.flatnonzero(cage.any(axis=0))
    if columns.size == 0:
        return np.zeros_like(cage)
    xs = np.arange(cage.shape[1])
    margin = 0.12 * (columns[-1] - columns[0])
    return np.broadcast_to((xs < columns[0] + margin) | (xs > columns[-1] - margin), cage.shape)


def _trunk(body: Mask, thorax: Mask, spacing: tuple[float, ...]) -> Mask:
    """The slice's body without arms that lie beside it, even when they touch."""
    labels, count = ndimage.label(ndimage.binary_opening(body, _disk(8.0 / spacing[0])))
    if count < 2:
        return body
    core = np.isin(labels, np.unique(labels[thorax & (labels > 0)]))
    trunk: Mask = ndimage.binary_dilation(core, _disk(10.0 / spacing[0])) & body & (core | (labels == 0))
    return trunk


def unseen() -> tuple[AxillaCoverage, AxillaCoverage]:
    """Coverage of a series without lungs."""
    remark = "no lungs found: the chest is not shown, or cannot be recognised"
    return AxillaCoverage(Side.RIGHT, covered=False, remark=remark), AxillaCoverage(Side.LEFT, covered=False, remark=remark)


def _coverage(coarse: Coarse, chest: Chest, side: Side, half: npt.NDArray[np.bool_], span: tuple[int, int]) -> AxillaCoverage:
    """Say whether the series shows this axilla: sideways, above and below."""
    remarks = []
    dz = coarse.spacing[0]
    if _cut_sideways(coarse, chest, side, span):
        remarks.append("cut off at the side of the field of view")
    lung = chest.thorax & half[None, None, :]
    area = lung.sum(axis=(1, 2)) * coarse.spacing[1] * coarse.spacing[2]
    top = coarse.hu.shape[0] - 1
    if chest.apex >= top and area[top] > OPEN_TOP_MM2:
        remarks.append("upper part above the first slice")
    if (chest.apex + 1) * dz < MIN_EXTENT_MM:
        remarks.append("lower part below the last slice")
    return AxillaCoverage(side, not remarks, "; ".join(remarks))


def _cut_sideways(coarse: Coarse, chest: Chest, side: Side, span: tuple[int, int]) -> bool:
    """Whether, in a quarter of the slices, skin is not reached within reach of the chest wall."""
    inside = field_of_view(coarse)
    cut, seen = 0, 0
    # The uppermost 40 mm show shoulders, which are wider than any field of view and hold no axilla at the side.
    last = max(span[0], chest.apex - round(40.0 / coarse.spacing[0]))
    for z in range(span[0], last + 1):
        columns = np.flatnonzero(chest.thorax[z].any(axis=0))
        if columns.size == 0:
            continue
        seen += 1
        wall = columns[0] if side is Side.RIGHT else columns[-1]
        rows = np.flatnonzero(chest.thorax[z][:, wall])
        row = int(rows[rows.size // 2])
        visible = np.flatnonzero(inside[row])
        edge = visible[0] if side is Side.RIGHT else visible[-1]
        if chest.body[z, row, edge] and abs(edge - wall) * coarse.spacing[2] < VISIBLE_LATERAL_MM:
            cut += 1
    return seen > 0 and cut > 0.25 * seen


def field_of_view(coarse: Coarse) -> Mask:
    """The reconstructed part of the slices: the inscribed circle where everything outside it is padding."""
    _, rows, columns = coarse.hu.shape
    y, x = np.ogrid[:rows, :columns]
    radius = min(rows, columns) / 2
    circle: Mask = (y - (rows - 1) / 2) ** 2 + (x - (columns - 1) / 2) ** 2 < (radius - 1.5) ** 2
    outside = coarse.hu[:, ~circle]
    if outside.size and float((outside > -900).mean()) < 0.01:
        return circle
    return np.ones((rows, columns), dtype=bool)


def inner_field_of_view(coarse: Coarse, margin_mm: float = 5.0) -> Mask:
    """The field of view without its outermost ``margin_mm``, where whatever is seen is cut off."""
    distance = ndimage.distance_transform_edt(np.pad(field_of_view(coarse), 1), coarse.spacing[1:])[1:-1, 1:-1]
    inner: Mask = distance > margin_mm
    return inner


def _closing(mask: Mask, radius: float, spacing: tuple[float, ...]) -> Mask:
    """Morphological closing by distance transforms (radius in mm); the border is treated as background."""
    if not mask.any():
        return mask
    pad = int(radius / min(spacing)) + 1
    padded = np.pad(mask, pad)
    dilated = ndimage.distance_transform_edt(~padded, spacing) <= radius
    closed: Mask = ndimage.distance_transform_edt(dilated, spacing) > radius
    return closed[pad:-pad, pad:-pad]


def _disk(radius: float) -> Mask:
    r = max(1, round(radius))
    y, x = np.ogrid[-r : r + 1, -r : r + 1]
    disk: Mask = y * y + x * x <= r * r + 0.5
    return disk
