"""Elements that all pages of the captures share: notice, orientation letters, boxes with numbers, footer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.report.capture import canvas
from alnnode.report.capture.canvas import INK, NOT_SUSPICIOUS, NOTICE, QUIET, SUSPICIOUS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import ImageDraw

    from alnnode.records import Analysis, Finding, Volume
    from alnnode.report.capture.canvas import View

    Ink = tuple[int, int, int]
    Rectangle = tuple[float, float, float, float]  # left, top, right, bottom

SIDE = 1024  # pixels: half of it, 512, must still be legible
GAP = 13
LABEL = 24  # font size of a node's number
LETTER = 22  # font size of an orientation letter


def ink(finding: Finding, analysis: Analysis) -> Ink:
    """Return the colour of a node."""
    return SUSPICIOUS if finding.suspicious(analysis.model.operating_point) else NOT_SUSPICIOUS


def notice(pen: ImageDraw.ImageDraw, analysis: Analysis) -> None:
    """Draw the notice of the model."""
    pen.rectangle((0, 0, SIDE, 42), fill=NOTICE)
    canvas.text(pen, (SIDE / 2, 21), analysis.model.banner, 24, INK, "mm")


def letters(pen: ImageDraw.ImageDraw, x: float, y: float, volume: Volume, view: View) -> None:
    """Draw the orientation letters at the edges of a view."""
    edge_letters(pen, canvas.orientation(volume, view), (x, y, x + view.width, y + view.height))


def edge_letters(pen: ImageDraw.ImageDraw, words: Sequence[str], area: Rectangle) -> None:
    """Draw letters at the left, right, upper and lower edge of an area."""
    for letter, (at, anchor) in zip(words, _edges(area), strict=True):
        canvas.text(pen, at, letter, LETTER, INK, anchor)


def _edges(area: Rectangle) -> list[tuple[tuple[float, float], str]]:
    """Return position and anchor of the letters at the edges of an area."""
    left, top, right, bottom = area
    across, down = (left + right) / 2, (top + bottom) / 2
    return [((left + 6, down), "lm"), ((right - 6, down), "rm"), ((across, top + 4), "ma"), ((across, bottom - 4), "md")]


def boxes(pen: ImageDraw.ImageDraw, findings: Sequence[tuple[Finding, Ink]], view: View, corner: tuple[float, float]) -> None:
    """Draw the boxes of nodes with their numbers."""
    drawn = [_box(pen, finding, view, corner, colour) for finding, colour in findings]
    area = (corner[0], corner[1], corner[0] + view.width, corner[1] + view.height)
    numbers(pen, [(finding.node.number, colour) for finding, colour in findings], drawn, area, LABEL)


def numbers(
    pen: ImageDraw.ImageDraw,
    named: Sequence[tuple[int, Ink]],
    boxes: Sequence[Rectangle],
    area: Rectangle,
    size: int,
) -> None:
    """Draw each number beside its box at a free position; a number without room in the area, or beside its letters, is left out."""
    letters = [pen.textbbox(at, "H", font=canvas.font(LETTER), anchor=anchor) for at, anchor in _edges(area)]
    taken = [*boxes, *letters]
    for (number, colour), box in zip(named, boxes, strict=True):
        words = str(number)
        width = canvas.font(size).getlength(words)
        for x, y in (
            (box[2] + 5, box[1] - 2),
            (box[0] - 5 - width, box[1] - 2),
            (box[0], box[1] - size - 5),
            (box[0], box[3] + 1),
        ):
            place = (x, y, x + width, y + size)
            inside = area[0] <= x and place[2] <= area[2] and area[1] <= y and place[3] <= area[3]
            if inside and not any(_overlap(place, other) for other in taken):
                canvas.text(pen, (x, y), words, size, colour)
                taken.append(place)
                break


def _box(pen: ImageDraw.ImageDraw, finding: Finding, view: View, corner: tuple[float, float], colour: Ink) -> Rectangle:
    box = finding.node.box
    ends = [view.place(box.i0, box.j0), view.place(box.i1, box.j1)]
    columns, rows = sorted(e[0] for e in ends), sorted(e[1] for e in ends)
    drawn = (corner[0] + columns[0] - 4, corner[1] + rows[0] - 4, corner[0] + columns[1] + 4, corner[1] + rows[1] + 4)
    pen.rectangle(drawn, outline=colour, width=2)
    return drawn


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def contour(pen: ImageDraw.ImageDraw, finding: Finding, view: View, x: float, y: float) -> None:
    """Draw the outline of a node."""
    node = finding.node
    points = [view.place(*point) for point in (*node.contour, node.contour[0])]
    pen.line([(x + px, y + py) for px, py in points], fill=INK, width=1)


def footer(pen: ImageDraw.ImageDraw, analysis: Analysis) -> None:
    """Draw the name of the model at the bottom of a page."""
    model = analysis.model
    line = f"{model.name} {model.version}, bundle {model.digest[:12]}; trained on {model.training_data}"
    for number, part in enumerate(canvas.wrap(line, 20, SIDE - 2 * GAP)[:2]):
        canvas.text(pen, (GAP, SIDE - 54 + number * 25), part, 20, QUIET)
