"""The pages of the captures: one per node, and a summary that a busy reader needs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from alnnode.records import Crop, NodeSource, Side
from alnnode.report import canvas, words
from alnnode.report.canvas import INK, LINE, NOT_SUSPICIOUS, NOTICE, QUIET, SUSPICIOUS, View

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import ImageDraw

    from alnnode.records import Analysis, Finding, Heatmap, Volume

ROW = 28  # of the table, pixels
SIDE = 1024  # pixels: half of it, 512, must still be legible
PANEL, GAP = 324, 13
INSET = 236
FIELD_MM = 110.0
CROP_NAMES = {Crop.FSC: "FSC: fixed size", Crop.ASC: "ASC: adjustable square"}


def node_page(finding: Finding, volume: Volume, analysis: Analysis, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Return the page of one node, (1024, 1024, 3): slice with box, both heatmaps, both crops, the figures."""
    page, pen = canvas.sheet(SIDE, SIDE)
    ink = _ink(finding, analysis)
    _notice(pen, analysis)
    canvas.text(pen, (GAP, 50), words.title(finding), 44, ink)
    canvas.text(pen, (SIDE - GAP, 50), f"p {words.percent(finding.prediction.probability):g} %", 44, ink, "ra")
    said = "at or above" if finding.suspicious(analysis.model.operating_point) else "below"
    node = finding.node
    canvas.text(
        pen, (GAP, 102),
        f"{node.side.value} axilla, {node.long_axis.length_mm:.1f} x {node.short_axis.length_mm:.1f} mm, mean {node.attenuation.mean:.0f} HU, "
        f"{said} the operating point", 24,
    )  # fmt: skip
    view = View.centred(volume, (node.slice_index, node.box.centre[1], node.box.centre[2]), FIELD_MM, PANEL)
    picture = canvas.grey(volume, view, window)
    panels = [
        (picture, "slice and outline"),
        *((canvas.overlay(picture, view, h), f"Grad-CAM {h.crop.value.upper()}") for h in finding.heatmaps),
    ]
    for number, (pixels, caption) in enumerate(panels):
        x, y = GAP + number * (PANEL + GAP), 142
        page.paste(Image.fromarray(pixels), (x, y))
        _letters(pen, x, y, volume, view)
        _outline(pen, finding, view, x, y, ink, boxed=number == 0)
        canvas.text(pen, (x + PANEL / 2, y + PANEL + 4), caption, 22, QUIET, "ma")
    _scale_bar(pen, GAP + 20, 142 + PANEL - 16, PANEL / FIELD_MM)
    for number, heatmap in enumerate(finding.heatmaps):
        _crop(page, pen, finding, heatmap, GAP + number * (INSET + GAP), 516)
    _overview(page, pen, finding, volume, window, (GAP + 2 * (INSET + GAP), 516))
    _figures(pen, finding, analysis, 796)
    return np.asarray(page)


def summary_page(analysis: Analysis, volume: Volume, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Return the summary, (1024, 1024, 3): both axillae in words, the most probable nodes in pictures, all nodes in a table."""
    page, pen = canvas.sheet(SIDE, SIDE)
    _notice(pen, analysis)
    canvas.text(pen, (GAP, 48), "Axillary lymph nodes: summary", 38)
    y = 98
    lines = [words.patient(analysis)] if analysis.not_analysed else [words.patient(analysis), *words.sides(analysis)]
    for sentence in lines:
        for line in canvas.wrap(sentence, 22, SIDE - 2 * GAP):
            canvas.text(pen, (GAP, y), line, 22)
            y += 28
    ranked = words.by_probability(analysis.findings)
    if not ranked:
        _largest_view(page, pen, volume, window, y + 12)
    else:
        threshold = f"{100 * analysis.model.operating_point.threshold:g} %"
        canvas.text(
            pen, (GAP, y), f"Orange: probability at or above the operating point ({threshold}). Blue: below it.", 20, QUIET
        )
        # What the table does not need goes to the pictures.
        height = min(max(SIDE - 190 - y - ROW * len(ranked), 262), 400)
        _gallery(page, pen, analysis, volume, window, (y + 36, height))
        _table(pen, analysis, volume, y + 36 + height + 38)
    _footer(pen, analysis)
    return np.asarray(page)


def _ink(finding: Finding, analysis: Analysis) -> tuple[int, int, int]:
    return SUSPICIOUS if finding.suspicious(analysis.model.operating_point) else NOT_SUSPICIOUS


def _notice(pen: ImageDraw.ImageDraw, analysis: Analysis) -> None:
    pen.rectangle((0, 0, SIDE, 42), fill=NOTICE)
    canvas.text(pen, (SIDE / 2, 21), analysis.model.banner, 24, INK, "mm")


def _letters(pen: ImageDraw.ImageDraw, x: float, y: float, volume: Volume, view: View) -> None:
    """Write the orientation at the edges of a view."""
    left, right, top, bottom = canvas.orientation(volume, view)
    for letter, at, anchor in (
        (left, (x + 6, y + view.height / 2), "lm"),
        (right, (x + view.width - 6, y + view.height / 2), "rm"),
        (top, (x + view.width / 2, y + 4), "ma"),
        (bottom, (x + view.width / 2, y + view.height - 4), "md"),
    ):
        canvas.text(pen, at, letter, 22, INK, anchor)


def _outline(
    pen: ImageDraw.ImageDraw, finding: Finding, view: View, x: float, y: float, ink: tuple[int, int, int], *, boxed: bool
) -> None:
    node = finding.node
    if boxed:
        ends = [view.place(node.box.i0, node.box.j0), view.place(node.box.i1, node.box.j1)]
        columns, rows = sorted(e[0] for e in ends), sorted(e[1] for e in ends)
        pen.rectangle((x + columns[0] - 4, y + rows[0] - 4, x + columns[1] + 4, y + rows[1] + 4), outline=ink, width=2)
        canvas.text(pen, (x + columns[1] + 9, y + rows[0] - 6), str(node.number), 24, ink)
        return
    points = [view.place(*point) for point in (*node.contour, node.contour[0])]
    pen.line([(x + px, y + py) for px, py in points], fill=INK, width=1)


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
    _letters(pen, *at, volume, view)
    _, row, column = finding.node.box.centre
    x, y = view.place(column + 0.5, row + 0.5)
    pen.ellipse((at[0] + x - 12, at[1] + y - 12, at[0] + x + 12, at[1] + y + 12), outline=SUSPICIOUS, width=3)
    caption = words.slice_name(volume, finding.node.slice_index)
    canvas.text(pen, (at[0] + width / 2, at[1] + INSET + 3), caption, 22, QUIET, "ma")


def _figures(pen: ImageDraw.ImageDraw, finding: Finding, analysis: Analysis, y: int) -> None:
    members = finding.prediction.members
    text = f"FSC network {words.percent(members[Crop.FSC]):g} %, ASC network {words.percent(members[Crop.ASC]):g} %, ensemble (mean) "
    located = "; located by reader" if finding.node.source is NodeSource.READER else ""
    canvas.text(pen, (GAP, y), text + f"{words.percent(finding.prediction.probability):g} %{located}", 24)
    for number, line in enumerate(canvas.wrap(words.operating_point(analysis.model.operating_point), 20, SIDE - 2 * GAP)[:3]):
        canvas.text(pen, (GAP, y + 36 + number * 26), line, 20, QUIET)
    _legend(pen, GAP, y + 130)
    _footer(pen, analysis)


def _legend(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    canvas.text(pen, (x, y), "Grad-CAM: what raised the probability", 20, QUIET)
    bar = canvas.colour(np.linspace(0, 1, 300, dtype=np.float32))
    start = x + 372
    for n, shade in enumerate(bar):
        pen.line((start + n, y + 2, start + n, y + 22), fill=(int(shade[0]), int(shade[1]), int(shade[2])))
    canvas.text(pen, (start + 310, y), "low to high, each map on its own", 20, QUIET)


def _footer(pen: ImageDraw.ImageDraw, analysis: Analysis) -> None:
    model = analysis.model
    line = f"{model.name} {model.version}, bundle {model.digest[:12]}; trained on {model.training_data}"
    for number, part in enumerate(canvas.wrap(line, 20, SIDE - 2 * GAP)[:2]):
        canvas.text(pen, (GAP, SIDE - 54 + number * 25), part, 20, QUIET)


def _gallery(
    page: Image.Image,
    pen: ImageDraw.ImageDraw,
    analysis: Analysis,
    volume: Volume,
    window: tuple[float, float],
    place: tuple[int, int],
) -> None:
    """Draw each side's slice of its most probable node, with the boxes of all nodes that the slice cuts; ``place`` is (top, height)."""
    width, (y, height) = (SIDE - 3 * GAP) // 2, place
    for number, side in enumerate((Side.RIGHT, Side.LEFT)):
        x = GAP + number * (width + GAP)
        ranked = [finding for finding in words.by_probability(analysis.findings) if finding.node.side is side]
        caption = f"{side.value} axilla: no node found"
        if ranked:
            top = ranked[0].node
            view = View.whole(volume, top.slice_index, width, height)
            page.paste(Image.fromarray(canvas.grey(volume, view, window)), (x, y))
            for finding in analysis.findings:
                if finding.node.box.k0 <= top.slice_index < finding.node.box.k1:
                    _outline(pen, finding, view, x, y, _ink(finding, analysis), boxed=True)
            _letters(pen, x, y, volume, view)
            caption = f"{side.value}, node {top.number}: {words.slice_name(volume, top.slice_index)}"
        canvas.text(pen, (x + width / 2, y + height + 4), caption, 20, QUIET, "ma")


def _table(pen: ImageDraw.ImageDraw, analysis: Analysis, volume: Volume, y: int) -> None:
    columns = (
        ("node", GAP),
        ("probability", 150),
        ("FSC / ASC", 320),
        ("axes, mm", 520),
        ("mean HU", 700),
        ("slice / image", 840),
    )
    for head, x in columns:
        canvas.text(pen, (x, y), head, 20, QUIET)
    ranked = words.by_probability(analysis.findings)
    room = (SIDE - 70 - (y + 30)) // ROW
    shown = ranked if len(ranked) <= room else ranked[: room - 1]
    for number, finding in enumerate(shown):
        node, members = finding.node, finding.prediction.members
        cells = (
            words.title(finding),
            f"{words.percent(finding.prediction.probability):g} %",
            f"{words.percent(members[Crop.FSC]):g} / {words.percent(members[Crop.ASC]):g} %",
            f"{node.long_axis.length_mm:.1f} x {node.short_axis.length_mm:.1f}",
            f"{node.attenuation.mean:.0f}",
            _slice_cell(volume, node.slice_index),
        )
        for (_, x), cell in zip(columns, cells, strict=True):
            canvas.text(pen, (x, y + ROW + number * ROW), cell, 22, _ink(finding, analysis))
    if len(shown) < len(ranked):
        canvas.text(
            pen,
            (GAP, y + ROW + len(shown) * ROW),
            f"and {len(ranked) - len(shown)} less probable: see the structured report",
            20,
            QUIET,
        )


def _slice_cell(volume: Volume, slice_index: int) -> str:
    image = volume.slices[slice_index].image_number
    return f"{slice_index + 1} / {'-' if image is None else image}"


def _largest_view(page: Image.Image, pen: ImageDraw.ImageDraw, volume: Volume, window: tuple[float, float], y: int) -> None:
    height = SIDE - 120 - y
    middle = len(volume.slices) // 2
    view = View.whole(volume, middle, SIDE - 2 * GAP, height)
    page.paste(Image.fromarray(canvas.grey(volume, view, window)), (GAP, y))
    _letters(pen, GAP, y, volume, view)
    canvas.text(pen, (SIDE / 2, y + height + 4), words.slice_name(volume, middle), 22, QUIET, "ma")
