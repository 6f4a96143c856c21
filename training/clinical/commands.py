"""``python -m training cohort``: check the table of a hospital's nodes, train on it, evaluate a bundle on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alnnode.imaging.crop import CropSettings
from alnnode.model import bundle as bundles
from alnnode.model.ensemble import choose_device
from alnnode.model.network import ARCHITECTURES
from training.clinical import check as checks
from training.clinical import crops, folder, phantoms, seen, study, table
from training.evaluate import bundle as evaluation
from training.networks import build, onnx_export
from training.report import page
from training.report.progress import bars, console

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.clinical.check import Rows
    from training.clinical.folder import Folder

app = typer.Typer(help="A hospital's own nodes: one folder of DICOM and one table.", no_args_is_help=True)

Table = Annotated[Path, typer.Option("--table", help="CSV or Parquet, one row for each node.", exists=True)]
Data = Annotated[Path, typer.Option("--data", help="Folder of the DICOM files.", exists=True, file_okay=False)]
ByPatientId = Annotated[
    bool,
    typer.Option("--patient-id/--ignore-patient-id", help="Whether the Patient ID in the images tells patients apart."),
]
Work = Annotated[Path, typer.Option("--work", help="Where crops are kept; a second run goes on from there.")]
Processes = Annotated[int, typer.Option(help="Series read, and networks trained, side by side.")]


@app.command()
def check(table_: Table, data: Data, by_patient_id: ByPatientId = True) -> None:
    """Name every row of the table that is wrong, with what to do, and warn of what may be; exit code 1 when one is wrong."""
    rows, problems = table.read(table_)
    lying = _folder(data)
    problems = sorted([*problems, *checks.problems(rows, lying, by_patient_id=by_patient_id)], key=lambda p: p.row)
    for line in [*map(str, problems), *(f"warning: {problem}" for problem in checks.warnings(rows, lying))]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(_summary(rows), markup=False, highlight=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)


@app.command()
def train(
    table_: Table,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder: bundle/, split.csv and report.html, and what a later run goes on from.")],
    name: Annotated[str, typer.Option(help="Of the model, as reports show it.")] = "own-nodes",
    family: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(ARCHITECTURES)}; may be repeated. Left out: all.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=1, max=study.FOLDS, help="Folds of the cross-validation that selects.")
    ] = study.FOLDS,
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    batch: Annotated[int, typer.Option(min=2)] = 32,
    output_stride: Annotated[int, typer.Option(help="8, 16 or 32: crop pixels per cell of the last feature map.")] = 8,
    pixels: Annotated[int, typer.Option(min=32, help="Side of both crops.")] = CropSettings().pixels,
    seed: Annotated[int, typer.Option(help="Of the split and the weights.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    processes: Processes = 2,
    detector: Annotated[str, typer.Option(help='"demo" or the folder of a bundle whose detector is taken over.')] = "demo",
    onnx: Annotated[bool, typer.Option("--onnx", help="Write both networks as ONNX, too.")] = False,
    by_patient_id: ByPatientId = True,
) -> None:
    """Run the paper's protocol on one's own nodes, with one command: split, train, select, calibrate, test once, export, report."""
    families = tuple(family or ARCHITECTURES)
    if unknown := set(families) - set(ARCHITECTURES):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: known are {', '.join(ARCHITECTURES)}", param_hint="--family")
    settings = CropSettings(pixels=pixels)
    rows, lying = _refused(table_, data, by_patient_id)
    plan = study.Plan(
        name, out / "work", families, folds, epochs, batch, output_stride, seed, choose_device(device).type, processes, phantoms.among(rows.values()), detector,
        settings,
    )  # fmt: skip
    with bars() as report:
        nodes = _nodes(rows, lying, settings, plan.work, report, processes)
        outcome = study.run(plan, nodes, report, out / "bundle")
    (out / "report.html").write_text(outcome.page, encoding="utf-8")
    console.print(evaluation.table(outcome.figures), markup=False, highlight=False, soft_wrap=True)
    console.print(f"bundle {outcome.digest[:12]} in {out / 'bundle'}; {out / 'report.html'} is written", markup=False)
    if onnx:
        console.print(onnx_export.write(bundles.load(out / "bundle"), out / "onnx"), markup=False)


@app.command()
def evaluate(
    table_: Table,
    data: Data,
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')],
    out: Annotated[Path, typer.Option(help="The page; it needs no other file.")] = Path("report.html"),
    work: Work = Path("runs/evaluate"),
    processes: Processes = 2,
    by_patient_id: ByPatientId = True,
) -> None:
    """Evaluate any bundle on all labelled nodes of a table; patients whom it was made with are refused, where that can be known."""
    loaded = bundles.load(bundles.resolve(bundle))
    rows, lying = _refused(table_, data, by_patient_id)
    checks.refuse(seen.problems(rows, loaded, bundles.resolve(bundle)), table_.name)
    with bars() as report:
        nodes = _nodes(rows, lying, loaded.crop_settings, work, report, processes)
    models = build.of_bundle(loaded)
    title = f"{loaded.manifest.name} {loaded.manifest.version} ({loaded.digest[:12]}) on cohort {nodes.digest[:12]}"
    out.write_text(page.render(study.evaluation(loaded, models, nodes, title, "cpu")), encoding="utf-8")
    point = loaded.identity.operating_point
    figures = evaluation.evaluate(nodes.cohort, models, loaded.manifest.temperature, point.threshold)
    console.print(evaluation.table(figures), markup=False, highlight=False, soft_wrap=True)
    console.print(f"{out} is written", markup=False)


def _folder(data: Path) -> Folder:
    with console.status("reading headers"):
        return folder.read(data)


def _refused(table_: Path, data: Path, by_patient_id: bool) -> tuple[Rows, Folder]:
    """Return the rows and the folder; a table with anything wrong in it, or with one class, is not trained on or evaluated."""
    rows, problems = table.read(table_)
    lying = _folder(data)
    checks.refuse([*problems, *checks.problems(rows, lying, by_patient_id=by_patient_id)], table_.name)
    checks.both_classes(rows, table_.name)
    console.print(_summary(rows), markup=False, highlight=False, soft_wrap=True)
    return rows, lying


def _nodes(
    rows: Rows,
    lying: Folder,
    settings: CropSettings,
    work: Path,
    report: Callable[[str, int], Callable[[], None]],
    processes: int,
) -> crops.Nodes:
    count = len(crops.series_of(rows))
    return crops.collect(rows, lying, settings, work / "crops", report("series", count), processes)


def _summary(rows: Rows) -> str:
    labelled = checks.labelled(rows).values()
    malignant = sum(row.label == table.MALIGNANT for row in labelled)
    patients = len({row.patient for row in labelled})
    without = len(rows) - len(labelled)
    more = f"; {without} without a label are left out" if without else ""
    return f"{len(labelled)} nodes ({malignant} malignant) of {patients} patients{more}"
