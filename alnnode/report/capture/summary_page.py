"""The summary page: the result of the series on one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from alnnode.records import Crop, Side
from alnnode.report import comparison_text, wording
from alnnode.report.capture import canvas, drawing, node_map
from alnnode.report.capture.canvas import INK, QUIET, SUSPICIOUS, View
from alnnode.report.capture.drawing import GAP, SIDE

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import ImageDraw

    from alnnode.records import Analysis, Finding, Volume

HEAD = 96  # top of the headline, pixels: below the text that viewers draw in the corners
ROW = 28  # height of a row of the table, pixels
GALLERY = (230, 400)  # least and greatest height of the pictures
LEAST_ROWS = 8  # least number of rows of the table
LINES = 11  # largest number of lines of sentences


def summary_page(analysis: Analysis, volume: Volume, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Return the summary, (1024, 1024, 3): headline, a sentence for each axilla, pictures of the most probable nodes, a table of all nodes."""
    page, pen = canvas.sheet(SIDE, SIDE)
    drawing.notice(pen, analysis)
    headline, suspicious = wording.headline(analysis)
    canvas.text(pen, (GAP, HEAD), headline, 36, SUSPICIOUS if suspicious else INK)
    y = HEAD + 50
    said = [wording.conclusion(analysis)] if analysis.not_analysed else [wording.conclusion(analysis), *wording.sides(analysis)]
    lines = [
        line for sentence in (*said, *comparison_text.sentences(analysis)) for line in canvas.wrap(sentence, 22, SIDE - 2 * GAP)
    ]
    for line in lines if len(lines) <= LINES else [*lines[: LINES - 1], "and more: see the structured report"]:
        canvas.text(pen, (GAP, y), line, 22)
        y += 27
    ranked = wording.by_probability(analysis.findings)
    if not ranked:
        _largest_view(page, pen, volume, window, y + 12)
    else:
        threshold = f"{100 * analysis.model.operating_point.threshold:g} %"
        legend = f"Orange: probability at or above the operating point ({threshold}). Blue: below it."
        canvas.text(pen, (GAP, y), legend if analysis.model.clinical else f"{legend} {_kind(analysis)}", 20, QUIET)
        # The pictures take the height that the table does not need.
        rows = min(len(ranked), LEAST_ROWS)
        height = min(max(SIDE - 190 - y - ROW * len(ranked), GALLERY[0]), GALLERY[1], SIDE - 190 - y - ROW * rows)
        _gallery(page, pen, analysis, volume, window, (y + 34, height))
        _table(pen, analysis, volume, y + 34 + height + 36)
    drawing.footer(pen, analysis)
    return np.asarray(page)


def _kind(analysis: Analysis) -> str:
    return f"{analysis.model.kind.capitalize()}."


def _gallery(
    page: Image.Image,
    pen: ImageDraw.ImageDraw,
    analysis: Analysis,
    volume: Volume,
    window: tuple[float, float],
    place: tuple[int, int],
) -> None:
    """Draw the slice of the most probable node of each side with the boxes of all its nodes, and the map; ``place`` is (top, height)."""
    (y, height) = place
    shown = shown_slices(analysis)
    width = (SIDE - (len(shown) + 2) * GAP) // (len(shown) + 1)
    for number, (slice_index, tops) in enumerate(shown):
        x = GAP + number * (width + GAP)
        view = View.fitted(volume, slice_index, width, height)
        page.paste(Image.fromarray(canvas.grey(volume, view, window)), (x, y))
        drawing.letters(pen, x, y, volume, view)
        cut = [f for f in wording.by_probability(analysis.findings) if f.node.box.k0 <= slice_index < f.node.box.k1]
        drawing.boxes(pen, [(finding, drawing.ink(finding, analysis)) for finding in cut], view, (x, y))
        named = " and ".join(wording.title(top) for top in tops)
        canvas.text(
            pen, (x + width / 2, y + height + 4), f"{named}: {wording.slice_name(volume, slice_index)}", 18, QUIET, "ma"
        )
    x = GAP + len(shown) * (width + GAP)
    node_map.draw(page, pen, analysis, wording.by_probability(analysis.findings), (x, y, width, height))
    canvas.text(pen, (x + width / 2, y + height + 4), "all nodes, seen from the front", 18, QUIET, "ma")


def shown_slices(analysis: Analysis) -> list[tuple[int, list[Finding]]]:
    """Return the slice of the most probable node of each side, with these nodes; once when both sides share a slice."""
    found: dict[int, list[Finding]] = {}
    for side in (Side.RIGHT, Side.LEFT):
        top = next((f for f in wording.by_probability(analysis.findings) if f.node.side is side), None)
        if top is not None:
            found.setdefault(top.node.slice_index, []).append(top)
    return list(found.items())


def _table(pen: ImageDraw.ImageDraw, analysis: Analysis, volume: Volume, y: int) -> None:
    since = comparison_text.heading(analysis)
    places = (GAP, 150, 320, 520, 700, 840) if since is None else (GAP, 132, 270, 424, 574, 764, 874)
    heads = (
        "node",
        "probability",
        "FSC / ASC",
        "axes, mm",
        *([] if since is None else [since]),
        "mean HU",
        "image" if wording.is_numbered(volume) else "slice",
    )
    for head, x in zip(heads, places, strict=True):
        canvas.text(pen, (x, y), head, 20, QUIET)
    ranked = wording.by_probability(analysis.findings)
    room = (SIDE - 64 - (y + ROW)) // ROW
    shown = ranked if len(ranked) <= room else ranked[: room - 1]
    for number, finding in enumerate(shown):
        for x, cell in zip(places, _cells(finding, analysis, volume), strict=True):
            canvas.text(pen, (x, y + ROW + number * ROW), cell, 22, drawing.ink(finding, analysis))
    if len(shown) < len(ranked):
        rest = f"{len(ranked) - len(shown)} less probable: see the structured report"
        canvas.text(pen, (GAP, y + ROW + len(shown) * ROW), rest, 20, QUIET)


def _cells(finding: Finding, analysis: Analysis, volume: Volume) -> list[str]:
    node, members = finding.node, finding.prediction.members
    return [
        wording.title(finding),
        wording.ensemble_probability(finding, analysis),
        f"{wording.table_percent(members[Crop.FSC])} / {wording.table_percent(members[Crop.ASC])} %",
        f"{node.long_axis.length_mm:.1f} x {node.short_axis.length_mm:.1f}",
        *([] if comparison_text.heading(analysis) is None else [comparison_text.cell(finding, analysis)]),
        f"{node.attenuation.mean:z.0f}",
        str(wording.slice_number(volume, node.slice_index)),
    ]


def _largest_view(page: Image.Image, pen: ImageDraw.ImageDraw, volume: Volume, window: tuple[float, float], y: int) -> None:
    height = SIDE - 120 - y
    middle = len(volume.slices) // 2
    view = View.fitted(volume, middle, SIDE - 2 * GAP, height)
    page.paste(Image.fromarray(canvas.grey(volume, view, window)), (GAP, y))
    drawing.letters(pen, GAP, y, volume, view)
    canvas.text(pen, (SIDE / 2, y + height + 4), wording.slice_name(volume, middle), 22, QUIET, "ma")
