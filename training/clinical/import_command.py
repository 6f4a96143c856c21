"""``python -m training import``: make the table of a cohort from marks in the formats that a hospital has."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer evaluates annotations
from typing import TYPE_CHECKING, Annotated, Final

import typer

from alnnode.locate.marks.reading import read_marks, read_marks_in_folder
from alnnode.records import MARK_STORAGE, MarkKind
from training.clinical import (
    coco,
    dicom_folder,
    dicom_marks,
    labels,
    merge_slices,
    nifti,
    node_table,
    phantom_truth,
    table_check,
)
from training.clinical.imported import ImportedNodes
from training.clinical.node_table import TableError
from training.report.progress import console, progress_bars

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from training.clinical.dicom_folder import DicomFolder
    from training.clinical.node_table import Problem


class ImportKind(StrEnum):
    """The format of the marks."""

    TABLE = "table"
    SR = "sr"
    SEG = "seg"
    RTSTRUCT = "rtstruct"
    PR = "pr"
    COCO = "coco"
    NIFTI = "nifti"
    PHANTOM = "phantom"


def import_nodes(
    kind: Annotated[ImportKind, typer.Argument(help="Format of the marks.")],
    source: Annotated[Path, typer.Option("--from", help="File or folder with the marks.", exists=True)],
    data: Annotated[Path, typer.Option("--data", help="Folder of the CT series (DICOM).", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option("--out", help="Table to write: Parquet if the name ends in .parquet, else CSV.")],
    pathology: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="CSV or Parquet table with a column label or pathology, joined by patient, series_uid, source_uid, side, …",
            exists=True,
        ),
    ] = None,
    mapped: Annotated[
        list[str] | None,
        typer.Option("--map", help='Label of a pathology text, such as "adenocarcinoma=malignant"; may be repeated.'),
    ] = None,
    own: Annotated[
        bool,
        typer.Option(
            "--own", help="Also import nodes from objects that alnnode made: their positions, never their classification."
        ),
    ] = False,
) -> None:
    """Make the table of a cohort with one row for each node; a label that is not known is left empty for you to fill in."""
    known = labels.label_mapping(mapped or [])
    with console.status("reading headers"):
        images = dicom_folder.read_folder(data)
    found = read_nodes(kind, source, images, known, own=own)
    rows = found.rows
    problems: list[Problem] = []
    if pathology:
        rows, problems = labels.join_labels(rows, pathology)
    rows = labels.apply_mapping(rows, known)
    node_table.write_table(rows, out)
    for line in [*found.left_out, *(f"{pathology.name if pathology else ''}, {problem}" for problem in problems)]:
        console.print(f"left out: {line}", markup=False, highlight=False, soft_wrap=True)
    numbered = dict(enumerate(rows, node_table.HEADER_ROW + 1))
    for line in [
        *map(str, table_check.table_problems(numbered, images)),
        *(f"warning: {one}" for one in table_check.table_warnings(numbered, images)),
    ]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    labelled = [row for row in rows if row.label]
    malignant = sum(row.label == node_table.MALIGNANT for row in labelled)
    console.print(
        f"{len(rows)} nodes in {out}: {malignant} malignant, {len(labelled) - malignant} benign, {len(rows) - len(labelled)} without a label",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def read_nodes(
    kind: ImportKind, source: Path, images: DicomFolder, known: Mapping[str, str], *, own: bool = False
) -> ImportedNodes:
    """Return the nodes of a file, or of all files of a folder, as one row each.

    Args:
        kind: format of the marks.
        source: file or folder with the marks.
        images: the DICOM files of the CT series.
        known: texts that map to a label.
        own: also import nodes from objects that alnnode made.

    Raises:
        TableError: no mark can be read.
    """
    if kind is ImportKind.TABLE:
        rows, problems = node_table.read_table(source)
        found = ImportedNodes(list(rows.values()), [str(problem) for problem in problems])
    elif kind in _MARKS:
        # These marks describe complete nodes, so no slices have to be merged.
        return _marked(_MARKS[kind], source, images, known, own=own)
    else:
        reader, endings = _READERS[kind]
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.name.endswith(endings))
        if not files:
            raise TableError(f"{source.name} has no file whose name ends in {' or '.join(endings)}")
        found = ImportedNodes()
        with progress_bars() as report:
            step = report("files", len(files))
            for path in files:
                one = reader(path, images)
                found.rows += one.rows
                found.left_out += one.left_out
                step()
    # Masks and phantoms describe complete nodes.
    return (
        found
        if kind in {ImportKind.NIFTI, ImportKind.PHANTOM}
        else ImportedNodes(merge_slices.merge_rows(found.rows, images), found.left_out)
    )


def _marked(kind: MarkKind, source: Path, images: DicomFolder, known: Mapping[str, str], *, own: bool) -> ImportedNodes:
    objects = [read_marks(source)] if source.is_file() else list(read_marks_in_folder(source))
    if not any(MARK_STORAGE.get(item.sop_class_uid) is kind for item in objects):
        raise TableError(f"{source.name} contains no {kind.value.upper()} object")
    with progress_bars() as report:
        return dicom_marks.read_marks(objects, dicom_marks.MarkImport(kind, images, known, own), report("series", None))


_MARKS: Final = {
    ImportKind.SR: MarkKind.REPORT,
    ImportKind.SEG: MarkKind.SEGMENTATION,
    ImportKind.RTSTRUCT: MarkKind.STRUCTURES,
    ImportKind.PR: MarkKind.PRESENTATION,
}
_READERS: dict[ImportKind, tuple[Callable[[Path, DicomFolder], ImportedNodes], tuple[str, ...]]] = {
    ImportKind.COCO: (coco.read_coco, (".json",)),
    ImportKind.NIFTI: (nifti.read_mask, nifti.ENDINGS),
    ImportKind.PHANTOM: (phantom_truth.read_truth, ("truth.json",)),
}
