"""``python -m training import``: the table of a cohort from what a hospital has."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer evaluates annotations
from typing import TYPE_CHECKING, Annotated, Final

import typer

from alnnode.locate.marks.reading import read_marks, read_marks_in_folder
from alnnode.records import MARK_STORAGE, MarkKind
from training.clinical import check, coco, folder, labels, marked, merge, nifti, phantoms, table
from training.clinical.imported import Imported
from training.clinical.table import TableError
from training.report.progress import bars, console

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from training.clinical.folder import Folder
    from training.clinical.table import Problem


class Kind(StrEnum):
    """What nodes are marked in."""

    TABLE = "table"
    SR = "sr"
    SEG = "seg"
    RTSTRUCT = "rtstruct"
    PR = "pr"
    COCO = "coco"
    NIFTI = "nifti"
    PHANTOM = "phantom"


def import_nodes(
    kind: Annotated[Kind, typer.Argument(help="What the nodes are marked in.")],
    source: Annotated[Path, typer.Option("--from", help="File, or folder of files.", exists=True)],
    data: Annotated[Path, typer.Option("--data", help="Folder of the CT series, DICOM.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option("--out", help="The table: CSV, or Parquet where the name ends so.")],
    pathology: Annotated[
        Path | None,
        typer.Option(
            "--labels", help="CSV with label or pathology, joined by patient, series_uid, source_uid, side, …", exists=True
        ),
    ] = None,
    mapped: Annotated[
        list[str] | None, typer.Option("--map", help='What a text means, as "adenocarcinoma=malignant"; may be repeated.')
    ] = None,
    own: Annotated[
        bool, typer.Option("--own", help="Take the places that alnnode itself found, too; never what it said of them.")
    ] = False,
) -> None:
    """Make the table of a cohort: one row for each node; what has no label yet is left empty, to be filled in."""
    known = labels.mapping(mapped or [])
    with console.status("reading headers"):
        lying = folder.read(data)
    found = read(kind, source, lying, known, own=own)
    rows = found.rows
    problems: list[Problem] = []
    if pathology:
        rows, problems = labels.join(rows, pathology)
    rows = labels.apply(rows, known)
    table.write(rows, out)
    for line in [*found.left_out, *(f"{pathology.name if pathology else ''}, {problem}" for problem in problems)]:
        console.print(f"left out: {line}", markup=False, highlight=False, soft_wrap=True)
    numbered = dict(enumerate(rows, table.HEADER_ROW + 1))
    for line in [*map(str, check.problems(numbered, lying)), *(f"warning: {one}" for one in check.warnings(numbered, lying))]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    labelled = [row for row in rows if row.label]
    malignant = sum(row.label == table.MALIGNANT for row in labelled)
    console.print(
        f"{len(rows)} nodes in {out}: {malignant} malignant, {len(labelled) - malignant} benign, {len(rows) - len(labelled)} without a label",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def read(kind: Kind, source: Path, lying: Folder, known: Mapping[str, str], *, own: bool = False) -> Imported:
    """Return the nodes of a file or of all files of a folder, each as one row; ``known`` are the texts that mean a label.

    Raises:
        TableError: nothing there can be read.
    """
    if kind is Kind.TABLE:
        rows, problems = table.read(source)
        found = Imported(list(rows.values()), [str(problem) for problem in problems])
    elif kind in _MARKS:
        # Whole masks and outlines: nothing has to be joined.
        return _marked(_MARKS[kind], source, lying, known, own=own)
    else:
        reader, endings = _READERS[kind]
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.name.endswith(endings))
        if not files:
            raise TableError(f"no file of {source.name} ends in {' or '.join(endings)}")
        found = Imported()
        with bars() as report:
            step = report("files", len(files))
            for path in files:
                one = reader(path, lying)
                found.rows += one.rows
                found.left_out += one.left_out
                step()
    # Masks and phantoms are of whole nodes already.
    return found if kind in {Kind.NIFTI, Kind.PHANTOM} else Imported(merge.slices(found.rows, lying), found.left_out)


def _marked(kind: MarkKind, source: Path, lying: Folder, known: Mapping[str, str], *, own: bool) -> Imported:
    objects = [read_marks(source)] if source.is_file() else list(read_marks_in_folder(source))
    if not any(MARK_STORAGE.get(item.sop_class_uid) is kind for item in objects):
        raise TableError(f"there is no {kind.value.upper()} in {source.name}")
    with bars() as report:
        return marked.read(objects, kind, lying, known, report("series", None), own=own)


_MARKS: Final = {
    Kind.SR: MarkKind.REPORT,
    Kind.SEG: MarkKind.SEGMENTATION,
    Kind.RTSTRUCT: MarkKind.STRUCTURES,
    Kind.PR: MarkKind.PRESENTATION,
}
_READERS: dict[Kind, tuple[Callable[[Path, Folder], Imported], tuple[str, ...]]] = {
    Kind.COCO: (coco.read, (".json",)),
    Kind.NIFTI: (nifti.read, nifti.ENDINGS),
    Kind.PHANTOM: (phantoms.read, ("truth.json",)),
}
