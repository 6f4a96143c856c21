"""The page of one node in the captures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from alnnode.records import Crop
from alnnode.report import comparison_text, wording
from alnnode.report.capture import canvas, drawing
from alnnode.report.capture.canvas import GROUND, INK, LINE, QUIET, View
from alnnode.report.capture.drawing import GAP, SIDE

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import ImageDraw

    from alnnode.records import Analysis, Finding, Heatmap, Volume

PANEL = 324
INSET = 236
FIELD_MM = 110.0
CROP_NAMES = {Crop.FSC: "FSC: fixed square", Crop.ASC: "ASC: fitted square"}
LEGEND = "FSC: network that sees a square of fixed size around the node. ASC: network that sees a square fitted to it."
EMPTY = "An empty Grad-CAM is no error, and no sign of a benign node: it shows only what raises the probability."


def node_page(finding: Finding, volume: Volume, analysis: Analysis, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Return the page of one node, (1024, 1024, 3): slice with box, both heatmaps, both crops, measurements."""
    page, pen = canvas.sheet(SIDE, SIDE)
    ink = drawing.ink(finding, analysis)
    drawing.notice(pen, analysis)
    canvas.text(pen, (GAP, 50), wording.title(finding), 44, ink)
    canvas.text(pen, (SIDE - GAP, 50), f"probability {wording.ensemble_probability(finding, analysis)}", 44, ink, "ra")
    canvas.text(pen, (SIDE - GAP, 104), analysis.model.kind, 22, QUIET, "ra")
    canvas.text(pen, (GAP, 102), _what(finding), 24)
    node = finding.node
    view = View.centred(volume, (node.slice_index, node.box.centre[1], node.box.centre[2]), FIELD_MM, PANEL)
    picture = canvas.grey(volume, view, window)
    panels = [
        (picture, "slice, outline and box"),
        *((canvas.overlay(picture, view, h), caption(h)) for h in finding.heatmaps),
    ]
    for number, (pixels, said) in enumerate(panels):
        x, y = GAP + number * (PANEL + GAP), 142
        page.paste(Image.fromarray(pixels), (x, y))
        drawing.letters(pen, x, y, volume, view)
        drawing.contour(pen, finding, view, x, y)
        if not number:
            drawing.boxes(pen, [(finding, ink)], view, (x, y))
        canvas.text(pen, (x + PANEL / 2, y + PANEL + 3), said, 20, QUIET, "ma")
        if number and finding.heatmaps[number - 1].empty:
            canvas.text(pen, (x + PANEL / 2, y + PANEL + 27), wording.EMPTY_MAP, 17, QUIET, "ma")
    _scale_bar(pen, GAP + 20, 142 + PANEL - 16, PANEL / FIELD_MM)
    for number, heatmap in enumerate(finding.heatmaps):
        _crop(page, pen, finding, heatmap, volume, (GAP + number * (INSET + GAP), 516))
    _overview(page, pen, finding, volume, window, (GAP + 2 * (INSET + GAP), 516), ink)
    _figures(pen, finding, analysis, 782)
    return np.asarray(page)


def _what(finding: Finding) -> str:
    """Return "right axilla, level I, 12.9 x 10.5 mm, mean 16 HU"."""
    node = finding.node
    level = "level not determined" if node.level is None else f"level {node.level.value}"
    axes = f"{node.long_axis.length_mm:.1f} x {node.short_axis.length_mm:.1f} mm"
    return f"{node.side.value} axilla, {level}, {axes}, mean {node.attenuation.mean:z.0f} HU"


def caption(heatmap: Heatmap) -> str:
    """Return "Grad-CAM FSC", with a remark when the map is empty, because a picture without colours would look like an error."""
    name = f"Grad-CAM {heatmap.crop.value.upper()}"
    return f"{name}: empty" if heatmap.empty else name


def _scale_bar(pen: ImageDraw.ImageDraw, x: float, y: float, pixels_per_mm: float) -> None:
    length = 20 * pixels_per_mm
    pen.line((x - 2, y, x + length + 2, y), fill=GROUND, width=7)  # it may lie on bone
    pen.line((x, y, x + length, y), fill=INK, width=3)
    canvas.text(pen, (x + length / 2, y - 4), "2 cm", 18, INK, "md")


def _crop(
    page: Image.Image, pen: ImageDraw.ImageDraw, finding: Finding, heatmap: Heatmap, volume: Volume, at: tuple[int, int]
) -> None:
    """Draw the input of the network (its first window), with its heatmap as a small picture in the corner."""
    x, y = at
    seen = finding.crops.fsc if heatmap.crop is Crop.FSC else finding.crops.asc
    pixels = np.repeat(np.rint(seen[0] * 255).astype(np.uint8)[..., None], 3, axis=2)
    page.paste(Image.fromarray(pixels).resize((INSET, INSET), Image.Resampling.BICUBIC), (x, y))
    warm = canvas.blend(pixels, heatmap.values, np.ones(heatmap.values.shape, bool))
    page.paste(
        Image.fromarray(warm).resize((INSET // 3, INSET // 3), Image.Resampling.BICUBIC),
        (x + INSET - INSET // 3, y + INSET - INSET // 3),
    )
    pen.rectangle((x, y, x + INSET - 1, y + INSET - 1), outline=LINE)
    canvas.text(
        pen, (x + INSET - 4, y + INSET - INSET // 3 - 3), "empty Grad-CAM" if heatmap.empty else "Grad-CAM", 16, INK, "rd"
    )
    side_mm = heatmap.geometry.size * abs(heatmap.geometry.step_row) * volume.spacing[1]
    canvas.text(pen, (x + INSET / 2, y + INSET + 3), f"{CROP_NAMES[heatmap.crop]}, {side_mm:.0f} mm", 20, QUIET, "ma")


def _overview(
    page: Image.Image,
    pen: ImageDraw.ImageDraw,
    finding: Finding,
    volume: Volume,
    window: tuple[float, float],
    at: tuple[int, int],
    ink: tuple[int, int, int],
) -> None:
    width = SIDE - GAP - at[0]
    view = View.fitted(volume, finding.node.slice_index, width, INSET)
    page.paste(Image.fromarray(canvas.grey(volume, view, window)), at)
    drawing.letters(pen, *at, volume, view)
    _, row, column = finding.node.box.centre
    x, y = view.place(column + 0.5, row + 0.5)
    pen.ellipse((at[0] + x - 12, at[1] + y - 12, at[0] + x + 12, at[1] + y + 12), outline=ink, width=3)
    caption = wording.slice_name(volume, finding.node.slice_index)
    canvas.text(pen, (at[0] + width / 2, at[1] + INSET + 3), caption, 22, QUIET, "ma")


def _figures(pen: ImageDraw.ImageDraw, finding: Finding, analysis: Analysis, y: int) -> None:
    members = finding.prediction.members
    side = "at or above" if finding.suspicious(analysis.model.operating_point) else "below"
    text = (
        f"FSC {wording.probability(members[Crop.FSC])}, ASC {wording.probability(members[Crop.ASC])}, "
        f"mean of both {wording.ensemble_probability(finding, analysis)}: {side} the operating point"
    )
    canvas.text(pen, (GAP, y), text, 24)
    # Two lines of each of the next texts end above the legend.
    y += 30
    known = (wording.marked(finding.node), wording.hilum(finding.node), comparison_text.change_sentence(finding, analysis))
    more = [said for said in known if said is not None]
    for line in canvas.wrap("; ".join(more), 22, SIDE - 2 * GAP)[:2]:
        canvas.text(pen, (GAP, y), line, 22)
        y += 25
    for line in canvas.wrap(wording.operating_point(analysis.model.operating_point), 20, SIDE - 2 * GAP)[:2]:
        canvas.text(pen, (GAP, y), line, 20, QUIET)
        y += 23
    canvas.text(pen, (GAP, 906), LEGEND, 18, QUIET)
    empty = any(heatmap.empty for heatmap in finding.heatmaps)
    if empty:
        canvas.text(pen, (GAP, 925), EMPTY, 18, QUIET)
    _legend(pen, GAP, 945 if empty else 938)
    drawing.footer(pen, analysis)


def _legend(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    canvas.text(pen, (x, y), "Grad-CAM: what raised the probability", 20, QUIET)
    bar = canvas.colour(np.linspace(0, 1, 300, dtype=np.float32))
    start = x + 372
    for n, shade in enumerate(bar):
        pen.line((start + n, y + 2, start + n, y + 22), fill=(int(shade[0]), int(shade[1]), int(shade[2])))
    canvas.text(pen, (start + 310, y), "low to high, each map on its own", 20, QUIET)
