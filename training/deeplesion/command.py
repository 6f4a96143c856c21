"""``python -m training deeplesion``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track

from alnnode.locate.detector import Detector
from alnnode.model import bundle as bundles
from training.deeplesion import pictures, report
from training.deeplesion.errors import DeepLesionError
from training.deeplesion.images import images_folder, missing_images
from training.deeplesion.labels import read_labels
from training.deeplesion.matching import Overlap
from training.deeplesion.search import Searcher
from training.deeplesion.selection import Choice, select
from training.deeplesion.table import against_order, read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.deeplesion.selection import SubVolume

TABLE = "DL_info.csv"
MISSES_RATE = "4"  # false positives per sub-volume at whose threshold misses are drawn

console = Console()


class Split(StrEnum):
    """Parts of the data set, as ``DL_info.csv`` divides it."""

    ALL = "all"
    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class FirstSlice(StrEnum):
    """End of the patient where the image numbers begin."""

    HEAD = "head"
    FEET = "feet"


def deeplesion(
    data: Annotated[
        Path, typer.Option(help="Folder of DeepLesion: DL_info.csv, and Images_png with a folder for each series.")
    ],
    labels: Annotated[Path, typer.Option(help="LesaNet's text_mined_labels_171_and_split.json.")],
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    label: Annotated[str, typer.Option(help="Label of the lesions that count.")] = "axilla lymph node",
    split: Annotated[
        Split, typer.Option(help="Part of DL_info.csv; the demonstration bundle was trained on none of it.")
    ] = Split.ALL,
    include_noisy: Annotated[
        bool, typer.Option("--include-noisy", help="Count lesions that DL_info.csv calls possibly noisy.")
    ] = False,
    first_slice: Annotated[
        FirstSlice, typer.Option(help="End of the patient where the image numbers begin.")
    ] = FirstSlice.HEAD,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out sub-volumes with missing images instead of stopping.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Search the first N sub-volumes only.")] = None,
    work: Annotated[
        Path, typer.Option(help="Folder for the results of each sub-volume; an interrupted run continues from there.")
    ] = Path("runs/deeplesion"),
    out: Annotated[Path | None, typer.Option(help="Folder for deeplesion.json and deeplesion.md.")] = None,
    misses: Annotated[
        bool,
        typer.Option("--misses", help="With --out: draw the lesions missed at 4 false positives per sub-volume as misses.png."),
    ] = False,
) -> None:
    """Measure on DeepLesion the recall of lesions with a label at 1, 2, 4 and 8 false positives per sub-volume."""
    lesions = read_table(data / TABLE)
    choice = Choice(label, split.value, include_noisy)
    selection = select(lesions, read_labels(labels, len(lesions)), choice)
    images = images_folder(data)
    subvolumes, incomplete = _complete(selection.subvolumes[:limit], images, skip_missing=skip_missing)
    loaded = bundles.load(bundles.resolve(bundle))
    head_first = first_slice is FirstSlice.HEAD
    searcher = Searcher(images, work, Detector.from_bundle(loaded), loaded.digest, head_first)
    searched = [searcher.search(sub) for sub in track(subvolumes, "sub-volumes", console=console)]
    run = report.Run(
        bundle=f"{loaded.manifest.name} {loaded.manifest.version} ({loaded.digest[:12]})",
        choice=choice,
        head_first=head_first,
        against_order=against_order(lesions, head_first=head_first),
        excluded=selection.excluded,
        incomplete=incomplete,
        limited=limit is not None and limit < len(selection.subvolumes),
    )
    figures = report.figures(run, subvolumes, searched)
    _print(report.table(figures), *(f"- {note}" for note in report.notes(figures)))
    if out:
        report.write(figures, out)
    if out and misses:
        threshold = figures["measures"][Overlap.IOU.value]["threshold"][MISSES_RATE]
        drawn = pictures.draw_misses(images, subvolumes, searched, threshold, out / "misses.png")
        _print(
            f"{drawn} missed lesions at {MISSES_RATE} false positives per sub-volume"
            + (f": {out / 'misses.png'}" if drawn else "")
        )


def _print(*lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _complete(subvolumes: Sequence[SubVolume], images: Path, *, skip_missing: bool) -> tuple[list[SubVolume], int]:
    """Return the sub-volumes whose images are all in the folder, and the number of the others."""
    missing = missing_images(images, subvolumes)
    complete = [sub for sub in subvolumes if sub.name not in missing]
    if missing and not (skip_missing and complete):
        name, files = next(iter(missing.items()))
        listed = ", ".join(files[:3]) + (", …" if len(files) > 3 else "")
        raise DeepLesionError(
            f"{len(missing)} of {len(subvolumes)} sub-volumes are incomplete below {images}; {name} lacks {len(files)} image{'s' if len(files) > 1 else ''} ({listed}): "
            "unpack the missing archives of the data set"
            + (", or leave these sub-volumes out with --skip-missing" if complete else "")
        )
    return complete, len(missing)
