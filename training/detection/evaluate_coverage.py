"""``python -m training evaluate-coverage``: cut marked series at every side, and judge what is said about coverage and levels."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer evaluates annotations
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from alnnode.errors import AlnnodeError
from alnnode.locate.axillary_level import LevelModel
from alnnode.locate.grid import Frame
from alnnode.model import bundle as bundles
from training.detection.case_series import find_cases, given_cases, volume_of
from training.detection.coverage_cuts import CutCount, WholeSeries
from training.detection.image_cuts import CutSide, turned_copies
from training.report.progress import console, progress_bars

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alnnode.records import Volume

HEADER = (
    "| series | cuts | axillae that lost a part | of these called covered | whole axillae | of these not called covered "
    "| levels told | of these changed |\n|---|---|---|---|---|---|---|---|"
)


def evaluate_coverage(
    data: Annotated[Path, typer.Option(help="Folder with one folder of DICOM files for each series.")],
    marks: Annotated[Path, typer.Option(help="Folder of the readers' marks: A/CASE.json and B/CASE.json.")],
    bundle: Annotated[
        str, typer.Option(help='"demo" or the folder of a bundle; its model of the axillary levels is used.')
    ] = "demo",
    only: Annotated[list[str] | None, typer.Option(help="Cut only this case; may be repeated. Default: all.")] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="CASE=FOLDER for a case whose folder cannot be identified by voxel size; may be repeated."),
    ] = None,
    columns: Annotated[int, typer.Option(min=1, help="Columns from one cut to the next, at the right and at the left.")] = 4,
    slices: Annotated[int, typer.Option(min=1, help="Slices from one cut to the next, at the bottom and at the top.")] = 1,
    rows: Annotated[int, typer.Option(min=1, help="Rows from one cut to the next, at the front and at the back.")] = 16,
) -> None:
    """Cut marked series at every side, and count axillae wrongly called covered and levels that change.

    The exit code is 1 if there are any.
    """
    levels = _levels(bundle)
    steps = (slices, rows, columns)
    cases = find_cases(marks, data, given_cases(case or []))
    counts: dict[str, CutCount] = {}
    with progress_bars() as report:
        chosen = [name for name in cases if not only or name in only]
        step = report("cuts", len(chosen) * len(CutSide))
        for name in chosen:
            folder, reference = cases[name]
            volume = volume_of(folder)
            _check_turns(name, volume)
            whole, counts[name] = WholeSeries(volume, reference, levels), CutCount()
            for side in CutSide:
                whole.judge(side, steps[side.axis], counts[name])
                step()
            _print_faults(name, counts[name])
    console.print(coverage_table(counts), markup=False, highlight=False, soft_wrap=True)
    console.print(refusal_table(counts), markup=False, highlight=False, soft_wrap=True)
    if any(count.wrong or count.other_side or count.changed for count in counts.values()):
        raise typer.Exit(1)


def _levels(bundle: str) -> LevelModel:
    settings = bundles.load(bundles.resolve(bundle)).detector_settings
    if settings is None or settings.get("levels") is None:
        raise AlnnodeError(f"the bundle {bundle} has no model of the axillary levels: use another bundle")
    return LevelModel.from_dict(settings["levels"])


def _check_turns(name: str, volume: Volume) -> None:
    """Compare the canonical voxels of a series that is stored in other orientations.

    Raises:
        AlnnodeError: they differ, so that coverage and levels would depend on the orientation.
    """
    frame = Frame.of(volume)
    expected = frame.canonical(volume.voxels)
    for number, copy in enumerate(turned_copies(volume)):
        turned = Frame.of(copy)
        if turned.spacing != frame.spacing or not np.array_equal(turned.canonical(copy.voxels), expected):
            raise AlnnodeError(
                f"{name}: orientation {number} of 8 gives another canonical volume; this is a fault of the program"
            )


def _print_faults(name: str, count: CutCount) -> None:
    for texts, fault in (
        (count.wrong, "called covered"),
        (count.other_side, "searched beyond the midline"),
        (count.changed, "level changed"),
    ):
        for text in texts:
            console.print(f"{name}: {fault}: {text}", markup=False, highlight=False, soft_wrap=True)


def coverage_table(counts: Mapping[str, CutCount]) -> str:
    """Return the counts of each series, and of all, as a Markdown table."""
    rows = [HEADER]
    figures: dict[str, tuple[int, ...]] = {
        name: (c.cuts, c.lost, len(c.wrong), c.kept, sum(map(len, c.refused.values())), c.told, len(c.changed))
        for name, c in counts.items()
    }
    figures["all"] = tuple(map(sum, zip(*figures.values(), strict=True))) if figures else (0,) * 7
    rows += [f"| {name} | {' | '.join(map(str, values))} |" for name, values in figures.items()]
    return "\n".join(rows)


def refusal_table(counts: Mapping[str, CutCount]) -> str:
    """Return, for each side of the cut, how far from the first loss whole axillae are not called covered, as a Markdown table."""
    rows = [
        "| images cut at the | whole axillae not called covered | median distance to the first loss | largest |\n|---|---|---|---|"
    ]
    for side in CutSide:
        distances = [mm for count in counts.values() for mm in count.refused.get(side, [])]
        if distances:
            rows.append(f"| {side} | {len(distances)} | {np.median(distances):.0f} mm | {max(distances):.0f} mm |")
    return "\n".join(rows)
