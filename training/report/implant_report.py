"""Write the metrics of implanted nodes as tables, and show the crops of some of these nodes in real CT and in phantoms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw

from training.evaluate.tables import format_difference, format_interval

if TYPE_CHECKING:
    from pathlib import Path

    from training.data.cohort import Cohort
    from training.evaluate.implants import Drop, ImplantFigures, ImplantSubset, Scores

SIDE: Final = 112  # pixels of a shown crop
CAPTION: Final = 14
COLUMNS: Final = 3
OF_CLASS: Final = 3  # nodes of each class and series that are shown
_NONE: Final = "-"


def implant_tables(figures: ImplantFigures) -> str:
    """Return the figures of all nodes and those of the subsets as two Markdown tables."""
    lines = [
        "| figure (95 % interval over series) | in the CT | in phantoms | drop | drop, interval over nodes |",
        "|---|---|---|---|---|",
    ]
    for name, of_nodes in figures.by_node.items():
        of_series = figures.by_series.get(name)
        cells = (
            [format_interval(of_series.ct), format_interval(of_series.phantoms), format_difference(of_series.drop)]
            if of_series
            else [f"{of_nodes.ct.value:.3f}", f"{of_nodes.phantoms.value:.3f}", f"{of_nodes.drop.value:+.3f}"]
        )
        lines.append(f"| {name} | {' | '.join(cells)} | {format_difference(of_nodes.drop)} |")
    columns = [f"{name} {where}" for name in ("AUROC", "sensitivity", "specificity") for where in ("in the CT", "in phantoms")]
    lines += ["", f"| nodes (95 % interval over nodes) | nodes | metastatic | {' | '.join(columns)} |", "|---" * 9 + "|"]
    lines += [_subset_row(subset) for subset in figures.subsets]
    return "\n".join(lines)


def _subset_row(subset: ImplantSubset) -> str:
    pairs = [_pair(figure) for figure in (subset.auroc, subset.sensitivity, subset.specificity)]
    return f"| {subset.name} | {subset.nodes} | {subset.malignant} | {' | '.join(cell for pair in pairs for cell in pair)} |"


def _pair(figure: Drop | None) -> tuple[str, str]:
    return (format_interval(figure.ct), format_interval(figure.phantoms)) if figure else (_NONE, _NONE)


def draw_contact_sheet(ct: Cohort, phantoms: Cohort, scores: tuple[Scores, Scores], path: Path) -> int:
    """Write a PNG with the crops of the first nodes of each class and series, and return how many are shown.

    A tile shows one node: FSC and ASC in the CT, then both in the phantom, in the window of the first channel.

    Args:
        ct: the nodes in the real CT.
        phantoms: the same nodes in phantoms.
        scores: probability of each node in both.
        path: of the file.
    """
    shown = [
        row
        for name in np.unique(ct.patient)
        for malignant in (False, True)
        for row in np.flatnonzero((ct.patient == name) & (ct.malignant == malignant))[:OF_CLASS]
    ]
    width, height = 4 * SIDE + 6, SIDE + CAPTION + 4
    sheet = Image.new("RGB", (width * COLUMNS, height * -(-len(shown) // COLUMNS)))
    draw = ImageDraw.Draw(sheet)
    for n, row in enumerate(shown):
        left, top = n % COLUMNS * width, n // COLUMNS * height
        for at, crop in enumerate((ct.fsc, ct.asc, phantoms.fsc, phantoms.asc)):
            picture = Image.fromarray(crop[row, 0, 0]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            sheet.paste(picture.convert("RGB"), (left + at * SIDE, top + CAPTION))
        text = f"{ct.patient[row]}: {'metastatic' if ct.malignant[row] else 'benign'}, {ct.short_axis[row]:.0f} mm"
        draw.text((left + 2, top), f"{text}; CT {scores[0][row]:.2f}, phantom {scores[1][row]:.2f}", fill=(255, 230, 90))
    sheet.save(path, optimize=True)
    return len(shown)
