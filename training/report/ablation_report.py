"""The page of the ablation, docs/ablation.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from training.evaluate import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.fit.ablation import AblationRow

INTRODUCTION: Final = """# Ablation: what each part of the training adds

The same two networks were trained with and without parts, and compared on the validation patients of the reproduction (seed {seed}). The test set
was not used. All nodes are drawings: the figures say what helps on drawings, and nothing about patients.

Command: `{command}`. Networks: {family}, {epochs} epochs. {nodes} nodes validate. Device: {device}.

An AUROC has its 95 % interval, clustered by patient. The last column compares the mean of both networks with that of the first row
(paired, clustered DeLong). Comparisons: {comparisons}; p is not corrected for them. The complete networks have the inputs of the bundle's networks.

| networks | FSC | ASC | FSC + ASC | less the first row |
|---|---|---|---|---|
"""

NOT_MEASURED: Final = """
A row without averaged weights chooses its epoch on the same validation nodes, so its figure is too high by an unknown amount. Not measured: crops of
96 pixels, five slices.
"""


def markdown(rows: Sequence[AblationRow], **facts: str | int) -> str:
    """Return the page.

    Args:
        rows: the complete networks first.
        facts: seed, command, family, epochs, nodes, device.
    """
    return INTRODUCTION.format(**facts, comparisons=len(rows) - 1) + "\n".join(_line(row) for row in rows) + "\n" + NOT_MEASURED


def _line(row: AblationRow) -> str:
    less = row.less_complete
    last = "" if less is None else f"{tables.format_difference(less.difference)}, p {tables.format_p(less.p)}"
    return f"| {row.name} | " + " | ".join(tables.format_interval(area) for area in row.areas) + f" | {last} |"
