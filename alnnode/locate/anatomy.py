"""Search regions of the axillae: body, lungs, chest wall and, lateral to it, the fat between pectoral and latissimus muscles.

All masks are on a coarse grid (about 2 x 2 x 2.5 mm) in the canonical frame (y to the back, x to the left).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

from alnnode.locate.chest import Axilla, Chest
from alnnode.locate.coverage import coverage_of, cut_at_side, outside
from alnnode.locate.plane_morphology import below, closed, disk_brush, gaps, near, opened, round_brush, without_holes
from alnnode.locate.sight import Sight
from alnnode.records import Side

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import Coarse, FloatVolume, Mask
    from alnnode.locate.plane_morphology import Gaps, Spacing

AIR_HU = -300.0  # slightly below the middle between skin and air, to include thin skin folds
LUNG_HU = -400.0
SOFT_HU = -20.0  # half way between fat (-100) and muscle (55)
MIN_LUNG_ML = 60.0
AXILLA_BELOW_APEX_MM = 175.0  # the lowest nodes of level I lie beside the fifth rib
BREAST_BELOW_APEX_MM = 125.0  # below this the tissue in front is breast
AXILLA_ABOVE_APEX_MM = 5.0  # two readers agreed on an upper end at most 7 mm above the highest lung slice of nine patients
SHOULDER_MM = 35.0  # below the apex the rib cage has its full width; medial of it, higher up, is the neck
LATERAL_MM = 85.0  # reach of the axilla from the chest wall
# Largest distance of nodes from the chest wall by mm below the apex: further down arms may lie there. 4 mm more than of their centres.
REACH_MM = ((60.0, 110.0), (LATERAL_MM + 4.0, 66.0))
OUTSIDE_HU = -960.0  # the median of air outside the patient is below, that of lung (as low as -940) above
MIN_INSIDE = 0.9  # least share of an open lung within the hull of the patient
OPEN_LUNG_MM2 = (1000.0, 80000.0)  # cross-section of lungs that are open to the edge of the image; bronchi may join both


def body_mask(hu: FloatVolume, spacing: tuple[float, float, float]) -> Mask:
    """Return the mask of the patient: the largest component denser than air after a 6 mm opening, with holes (lungs) filled per slice."""
    brush = disk_brush(6.0 / spacing[1])
    labels, count = ndimage.label(np.stack([opened(plane, brush) for plane in hu > AIR_HU]))
    if count == 0:
        return np.zeros(hu.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body = labels == int(sizes.argmax())
    return np.stack([without_holes(plane) for plane in body])


def lung_mask(hu: FloatVolume, body: Mask, spacing: tuple[float, float, float]) -> Mask:
    """Return the air within the body, in components of at least `MIN_LUNG_ML`; a 5 mm opening separates the trachea."""
    air = body & (hu < LUNG_HU)
    brush = disk_brush(5.0 / spacing[1])
    labels, _ = ndimage.label(np.stack([opened(plane, brush) for plane in air]))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.isin(labels, np.flatnonzero(sizes * np.prod(spacing) / 1000 >= MIN_LUNG_ML))


def find_chest(coarse: Coarse) -> Chest | None:
    """Return the landmarks; None when no lungs are found."""
    view = field_of_view(coarse)
    body = _with_open_lungs(body_mask(coarse.hu, coarse.spacing), coarse, view)
    lungs = lung_mask(coarse.hu, body, coarse.spacing)
    area = lungs.sum(axis=(1, 2)) * coarse.spacing[1] * coarse.spacing[2]
    present = np.flatnonzero(area > 300.0)
    if present.size == 0:
        return None
    midline = _midline(body, lungs, area)
    thorax = np.zeros_like(body)
    for z in present:
        thorax[z] = _hull(lungs[z], midline, coarse.spacing) & body[z]
    apex = int(present[-1])
    searched = (AXILLA_ABOVE_APEX_MM, AXILLA_BELOW_APEX_MM)
    return Chest(body, thorax, midline, apex, Sight.of(thorax, lungs, view, coarse.spacing, searched))


def _with_open_lungs(body: Mask, coarse: Coarse, view: Mask) -> Mask:
    """Return the body with lungs that reach the edge of the image: they are not holes of the body, but denser than air."""
    edge = view & ~ndimage.binary_erosion(view)
    filled = body.copy()
    for z in np.flatnonzero((body & edge).any(axis=(1, 2))):
        labels, _ = ndimage.label(view & ~body[z])
        sizes = np.bincount(labels.ravel()) * coarse.spacing[1] * coarse.spacing[2]
        fits = (sizes >= OPEN_LUNG_MM2[0]) & (sizes <= OPEN_LUNG_MM2[1])
        fits[0] = False
        for label in np.unique(labels[edge & fits[labels]]):
            piece = labels == label
            # The padding of a couch is also denser than air, but lies behind the patient, not within the hull.
            if np.median(coarse.hu[z][piece]) > OUTSIDE_HU and (piece & _convex(body[z])).sum() > MIN_INSIDE * piece.sum():
                filled[z] |= piece
    return filled


def _midline(body: Mask, lungs: Mask, area: npt.NDArray[np.float64]) -> float:
    """Return the mid-sagittal x: the median, over the slices with most lung, of the middle between the outer lung borders."""
    middles = []
    for z in np.flatnonzero(area >= 0.5 * area.max()):
        body_x = np.flatnonzero(body[z].any(axis=0))
        lung_x = np.flatnonzero(lungs[z].any(axis=0))
        lung_middle = (lung_x[0] + lung_x[-1]) / 2
        body_middle = (body_x[0] + body_x[-1]) / 2
        # With a single lung (the other is collapsed) the middle would lie inside it.
        one_sided = lung_x[-1] < body_middle or lung_x[0] > body_middle
        middles.append(body_middle if one_sided else lung_middle)
    return float(np.median(middles))


def _hull(lung: Mask, midline: float, spacing: tuple[float, float, float]) -> Mask:
    """Return the convex hull of the lungs of one slice; a side smaller than half of the other is replaced by the mirrored other."""
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
    return _convex(both)


def _convex(mask: Mask) -> Mask:
    """Return the convex hull of a non-empty mask of a slice."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    hull = np.zeros_like(mask)
    hull[box] = convex_hull_image(mask[box])
    return hull


def find_axillae(coarse: Coarse, chest: Chest) -> tuple[Axilla, Axilla]:
    """Return the search regions and their coverage, right then left."""
    dz, plane = coarse.spacing[0], coarse.spacing[1:]
    first = max(0, chest.apex - round(AXILLA_BELOW_APEX_MM / dz))
    last = min(coarse.hu.shape[0] - 1, chest.apex + round(AXILLA_ABOVE_APEX_MM / dz))
    region, zone = np.zeros_like(chest.body), np.zeros_like(chest.body)
    depth = thorax_depth(chest, first)
    visible = inner_field_of_view(coarse)
    for z in range(first, last + 1):
        # Above the apex the hull of the apex slice represents the chest wall.
        thorax = chest.thorax[min(z, chest.apex)]
        cage = chest.thorax[max(first, min(z, chest.apex - round(SHOULDER_MM / dz)))]
        height = float(np.clip(1 - (chest.apex - z) * dz / BREAST_BELOW_APEX_MM, 0, 1))
        if thorax.any():
            wall = gaps(thorax)
            trunk = _trunk(chest.body[z], thorax, plane)
            space = trunk & _band(depth, height, thorax.shape[0]) & _lateral(cage)
            region[z] = space & visible & _compartment(coarse.hu[z], chest.body[z], thorax, wall, plane)
            zone[z] = space & near(wall, round_brush(np.interp((chest.apex - z) * dz, *REACH_MM), plane))
    xs = np.arange(coarse.hu.shape[2])
    axillae = []
    for side, half in ((Side.RIGHT, xs < chest.midline), (Side.LEFT, xs >= chest.midline)):
        here = zone & half
        mask = region & half & ~chest.sight.wall_cut(side)[:, None, None]
        if outside(side, chest, here):
            mask[:] = False
        coverage = coverage_of(side, chest, here, mask, coarse.spacing)
        axillae.append(Axilla(side, mask, coverage, cut_at_side(side, chest, here, coarse.spacing)))
    return axillae[0], axillae[1]


def _band(depth: tuple[int, int], height: float, rows: int) -> npt.NDArray[np.bool_]:
    """Return the rows between the front and the back of the axilla, shape (rows, 1).

    ``height`` is 1 at the lung apex and 0 from `BREAST_BELOW_APEX_MM` down.
    """
    front, back = depth
    # Far below the apex the front is breast; towards the apex the axilla (levels II and III) lies in front of the lung.
    limit_front = front + np.interp(height, (0.0, 0.35, 1.0), (0.12, 0.08, 0.0)) * (back - front)
    limit_back = front + 0.76 * (back - front)
    at = np.arange(rows)
    band: npt.NDArray[np.bool_] = ((at >= limit_front) & (at <= limit_back))[:, None]
    return band


def thorax_depth(chest: Chest, first: int) -> tuple[int, int]:
    """Return the front and the back row of the thorax within the search region."""
    rows = np.flatnonzero(chest.thorax[first : chest.apex + 1].any(axis=(0, 2)))
    return int(rows[0]), int(rows[-1])


def _compartment(hu: FloatVolume, body: Mask, thorax: Mask, wall: Gaps, spacing: Spacing) -> Mask:
    """Return the axillary compartment of one slice: the area within muscle, lateral of the ribs, away from the skin.

    ``wall`` are the gaps to the thorax.
    """
    # The border of the image is not skin, so that the axilla of a cut-off patient is kept.
    skin = gaps(~body)
    muscle = body & ~thorax & (hu > SOFT_HU) & ~near(skin, round_brush(6.0, spacing))
    enclosed = closed(opened(muscle, disk_brush(4.0 / spacing[0])), round_brush(34.0, spacing))
    # Along the chest wall there are nodes even where no muscle lies lateral of the fat.
    inside = near(gaps(enclosed), below(28.0, spacing)) | near(wall, below(30.0, spacing))
    return (
        inside
        & ~near(wall, round_brush(4.0, spacing))
        & near(wall, below(LATERAL_MM, spacing))
        & ~near(skin, round_brush(4.0, spacing))
    )


def _lateral(cage: Mask) -> Mask:
    """Return the columns lateral of the rib cage, and an eighth of its width medial of its border (levels II and III)."""
    columns = np.flatnonzero(cage.any(axis=0))
    if columns.size == 0:
        return np.zeros_like(cage)
    xs = np.arange(cage.shape[1])
    margin = 0.12 * (columns[-1] - columns[0])
    return np.broadcast_to((xs < columns[0] + margin) | (xs > columns[-1] - margin), cage.shape)


def _trunk(body: Mask, thorax: Mask, spacing: Spacing) -> Mask:
    """Return the body of a slice without the arms beside it, even where they touch it."""
    labels, count = ndimage.label(opened(body, disk_brush(8.0 / spacing[0])))
    if count < 2:
        return body
    core = np.isin(labels, np.unique(labels[thorax & (labels > 0)]))
    trunk: Mask = near(gaps(core), disk_brush(10.0 / spacing[0])) & body & (core | (labels == 0))
    return trunk


def field_of_view(coarse: Coarse) -> Mask:
    """Return the reconstructed part of the slices: the inscribed circle when all pixels outside it are padding, else all pixels."""
    _, rows, columns = coarse.hu.shape
    y, x = np.ogrid[:rows, :columns]
    radius = min(rows, columns) / 2
    circle: Mask = (y - (rows - 1) / 2) ** 2 + (x - (columns - 1) / 2) ** 2 < (radius - 1.5) ** 2
    outside = coarse.hu[:, ~circle]
    if outside.size and float((outside > -900).mean()) < 0.01:
        return circle
    return np.ones((rows, columns), dtype=bool)


def inner_field_of_view(coarse: Coarse, margin_mm: float = 5.0) -> Mask:
    """Return the field of view without its outermost ``margin_mm``, where structures are cut off."""
    distance = ndimage.distance_transform_edt(np.pad(field_of_view(coarse), 1), coarse.spacing[1:])[1:-1, 1:-1]
    inner: Mask = distance > margin_mm
    return inner
