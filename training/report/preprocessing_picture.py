"""Draw the steps of the preprocessing, made with the code for training and for the node: docs/img/training-steps.png."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from alnnode import phantom
from alnnode.imaging.crop import CropSettings, asc_geometry, crop_box, fsc_geometry
from alnnode.imaging.window import apply_window
from alnnode.phantom import PhantomSettings, Position
from training.data.cohort import as_volume, jitter_box

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from alnnode.records import Box, CropGeometry

SEED: Final = 11


def draw_preprocessing(path: Path) -> None:
    """Draw the slice, windows, boxes, both crops, and a crop at the border of the image."""
    made, prone = (phantom.make_patient(SEED, 0, PhantomSettings(position=lies)) for lies in (Position.HFS, Position.HFP))
    volume, crops = as_volume(made), CropSettings()
    node = max(made.nodes, key=lambda n: n.short_axis_mm)
    place = volume.voxels[node.slice_index]
    pair = crop_box(volume, node.box, node.slice_index, crops)
    geometries = (
        fsc_geometry(volume, node.box, node.slice_index, crops),
        asc_geometry(volume, node.box, node.slice_index, crops),
    )
    figure = Figure(figsize=(13, 9.5), layout="constrained")
    axes = figure.subplots(3, 4)
    _show(axes[0, 0], apply_window(place, 40, 400), "1 HU, slice of the largest section")
    for geometry in geometries:
        axes[0, 0].add_patch(_square(geometry))
    around = (slice(node.box.j0 - 30, node.box.j1 + 30), slice(node.box.i0 - 30, node.box.i1 + 30))
    _show(axes[0, 1], apply_window(place[around], 40, 400), "2 box: true (solid), as a detector\nmight give it (dashed)")
    rng = np.random.default_rng(SEED)
    boxes = [node.box, *(jitter_box(node.box, node.slice_index, rng)[0] for _ in range(3))]
    for number, box in enumerate(boxes):
        axes[0, 1].add_patch(_box(box, around, "-" if number == 0 else "--"))
    _show(axes[0, 2], pair.fsc[0], f"3 FSC: {crops.fsc_mm:g} mm square, size kept")
    _show(axes[0, 3], pair.asc[0], f"4 ASC: box + {crops.asc_margin:.0%}, resized, shape kept")
    for column, (centre, width) in enumerate(crops.windows):
        _show(axes[1, column], pair.fsc[column], f"5 channel {column + 1} of FSC: W{width:g} L{centre:g}")
    small = min(made.nodes, key=lambda n: n.short_axis_mm)
    crops_of_small = crop_box(volume, small.box, small.slice_index, crops)
    _show(axes[1, 3], crops_of_small.fsc[0], f"6 FSC of a node of {small.short_axis_mm:.0f} mm …")
    _show(axes[2, 0], crops_of_small.asc[0], "7 … and its ASC: size is lost")
    cut = node.box.i0 - 3  # as if the field of view ended beside the node
    edge = replace(node.box, i0=node.box.i0 - cut, i1=node.box.i1 - cut)
    narrow = replace(volume, voxels=volume.voxels[:, :, cut:])
    _show(
        axes[2, 1], crop_box(narrow, edge, node.slice_index, crops).fsc[0], "8 FSC at the border of the image: padded with air"
    )
    same = next(n for n in prone.nodes if n.number == node.number)
    _show(axes[2, 2], apply_window(prone.hu[same.slice_index], 40, 400), "9 the same patient prone, as stored …")
    _show(
        axes[2, 3], crop_box(as_volume(prone), same.box, same.slice_index, crops).fsc[0], "10 … and its FSC: oriented as in 3"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=75, metadata={"Software": None})


def _show(axes: Axes, grey: np.ndarray, title: str) -> None:
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _square(geometry: CropGeometry) -> Rectangle:
    corner = (geometry.left - 0.5 * geometry.step_column, geometry.top - 0.5 * geometry.step_row)
    return Rectangle(
        corner, geometry.size * geometry.step_column, geometry.size * geometry.step_row, fill=False, color="yellow"
    )


def _box(box: Box, around: tuple[slice, slice], style: str) -> Rectangle:
    corner = (box.i0 - around[1].start - 0.5, box.j0 - around[0].start - 0.5)
    return Rectangle(corner, box.i1 - box.i0, box.j1 - box.j0, fill=False, color="cyan", linestyle=style)
