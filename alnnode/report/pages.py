"""The page of one node in the captures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from alnnode.records import Crop, NodeSource
from alnnode.report import canvas, changes, drawing, words
from alnnode.report.canvas import INK, LINE, QUIET, SUSPICIOUS, View
from alnnode.report.drawing import GAP, SIDE

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import ImageDraw

    from alnnode.records import Analysis, Finding, Heatmap, Volume

PANEL = 324
INSET = 236
FIELD_MM = 110.0
CROP_NAMES = {Crop.FSC: "FSC: fixed size", Crop.ASC: "ASC: adjustable square"}


def node_page(finding: Finding, volume: Volume, analysis: Analysis, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Return the page of one node, (1024, 1024, 3): slice with box, both heatmaps, both crops, the figures."""
    page, pen = canvas.sheet(SIDE, SIDE)
    ink = drawing.ink(finding, analysis)
    drawing.notice(pen, analysis)
    canvas.text(pen, (GAP, 50), words.title(finding), 44, ink)
    canvas.text(pen, (SIDE - GAP, 50), f"probability {words.of_ensemble(finding, analysis)}", 44, ink, "ra")
    said = "at or above" if finding.suspicious(analysis.model.operating_point) else "below"
    node = finding.node
    line = (
        f"{node.side.value} axilla, {node.long_axis.length_mm:.1f} x {node.short_axis.length_mm:.1f} mm, mean {node.attenuation.mean:.0f} HU, "
        f"{said} the operating point"
    )
    canvas.text(pen, (GAP, 102), line, 24)
    view = View.centred(volume, (node.slice_index, node.box.centre[1], node.box.centre[2]), FIELD_MM, PANEL)
    picture = canvas.grey(volume, view, window)
    panels = [
        (picture, "slice and outline"),
        *((canvas.overlay(picture, view, h), f"Grad-CAM {h.crop.value.upper()}") for h in finding.heatmaps),
    ]
    for number, (pixels, caption) in enumerate(panels):
        x, y = GAP + number * (PANEL + GAP), 142
        page.paste(Image.fromarray(pixels), (x, y))
        drawing.letters(pen, x, y, volume, view)
        if number:
            drawing.contour(pen, finding, view, x, y)
        else:
            drawing.boxes(pen, [(finding, ink)], view, (x, y))
        canvas.text(pen, (x + PANEL / 2, y + PANEL + 4), caption, 22, QUIET, "ma")
    _scale_bar(pen, GAP + 20, 142 + PANEL - 16, PANEL / FIELD_MM)
    for number, heatmap in enumerate(finding.heatmaps):
        _crop(page, pen, finding, heatmap, GAP + number * (INSET + GAP), 516)
    _overview(page, pen, finding, volume, window, (GAP + 2 * (INSET + GAP), 516))
    _figures(pen, finding, analysis, 796)
    return np.asarray(page)


def _scale_bar(pen: ImageDraw.ImageDraw, x: float, y: float, pixels_per_mm: float) -> None:
    length = 20 * pixels_per_mm
    pen.line((x, y, x + length, y), fill=INK, width=3)
    canvas.text(pen, (x + length / 2, y - 4), "2 cm", 18, INK, "md")


def _crop(page: Image.Image, pen: ImageDraw.ImageDraw, finding: Finding, heatmap: Heatmap, x: int, y: int) -> None:
    """Draw what the network saw (its first window), with its heatmap as a small picture in the corner."""
    seen = finding.crops.fsc if heatmap.crop is Crop.FSC else finding.crops.asc
    pixels = np.repeat(np.rint(seen[0] * 255).astype(np.uint8)[..., None], 3, axis=2)
    page.paste(Image.fromarray(pixels).resize((INSET, INSET), Image.Resampling.BICUBIC), (x, y))
    warm = canvas.blend(pixels, heatmap.values, np.ones(heatmap.values.shape, bool))
    page.paste(
        Image.fromarray(warm).resize((INSET // 3, INSET // 3), Image.Resampling.BICUBIC),
        (x + INSET - INSET // 3, y + INSET - INSET // 3),
    )
    pen.rectangle((x, y, x + INSET - 1, y + INSET - 1), outline=LINE)
    canvas.text(pen, (x + INSET / 2, y + INSET + 3), CROP_NAMES[heatmap.crop], 22, QUIET, "ma")


def _overview(
    page: Image.Image,
    pen: ImageDraw.ImageDraw,
    finding: Finding,
    volume: Volume,
    window: tuple[float, float],
    at: tuple[int, int],
) -> None:
    width = SIDE - GAP - at[0]
    view = View.whole(volume, finding.node.slice_index, width, INSET)
    page.paste(Image.fromarray(canvas.grey(volume, view, window)), at)
    drawing.letters(pen, *at, volume, view)
    _, row, column = finding.node.box.centre
    x, y = view.place(column + 0.5, row + 0.5)
    pen.ellipse((at[0] + x - 12, at[1] + y - 12, at[0] + x + 12, at[1] + y + 12), outline=SUSPICIOUS, width=3)
    caption = words.slice_name(volume, finding.node.slice_index)
    canvas.text(pen, (at[0] + width / 2, at[1] + INSET + 3), caption, 22, QUIET, "ma")


def _figures(pen: ImageDraw.ImageDraw, finding: Finding, analysis: Analysis, y: int) -> None:
    members = finding.prediction.members
    text = f"FSC network {words.probability(members[Crop.FSC])}, ASC network {words.probability(members[Crop.ASC])}, ensemble (mean) "
    located = "; located by reader" if finding.node.source is NodeSource.READER else ""
    canvas.text(pen, (GAP, y), text + f"{words.of_ensemble(finding, analysis)} ({analysis.model.kind}){located}", 24)
    y += 34
    more = [said for said in (words.hilum(finding.node), changes.of_node(finding, analysis)) if said is not None]
    for line in canvas.wrap("; ".join(more), 22, SIDE - 2 * GAP)[:2]:
        canvas.text(pen, (GAP, y), line, 22)
        y += 28
    for line in canvas.wrap(words.operating_point(analysis.model.operating_point), 20, SIDE - 2 * GAP)[:2]:
        canvas.text(pen, (GAP, y), line, 20, QUIET)
        y += 25
    _legend(pen, GAP, 938)
    drawing.footer(pen, analysis)


def _legend(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    canvas.text(pen, (x, y), "Grad-CAM: what raised the probability", 20, QUIET)
    bar = canvas.colour(np.linspace(0, 1, 300, dtype=np.float32))
    start = x + 372
    for n, shade in enumerate(bar):
        pen.line((start + n, y + 2, start + n, y + 22), fill=(int(shade[0]), int(shade[1]), int(shade[2])))
    canvas.text(pen, (start + 310, y), "low to high, each map on its own", 20, QUIET)
