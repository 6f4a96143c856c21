"""``python -m training cohort``: check the table of a hospital's nodes, train on it, evaluate a bundle on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from alnnode.imaging.crop import CropSettings
from alnnode.model import bundle as bundles
from alnnode.model.ensemble import choose_device
from alnnode.model.network import ARCHITECTURES
from training.clinical import bundle_patients, copied_nodes, dicom_folder, node_crops, node_table, phantom_truth, table_check
from training.clinical.cohort_page import evaluation_page
from training.clinical.cohort_split import FOLDS
from training.clinical.cohort_training import CohortPlan, train_on_cohort
from training.clinical.node_crops import CropOptions
from training.clinical.starting_bundle import load_starting_bundle
from training.evaluate.bundle_metrics import evaluate_ensemble, metrics_table
from training.fit.protocol import PAPER
from training.fit.selection import FEW_PATIENTS
from training.networks import build, onnx_export
from training.report import page
from training.report.progress import console, progress_bars

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.clinical.dicom_folder import DicomFolder
    from training.clinical.starting_bundle import StartingBundle
    from training.clinical.table_check import Rows

SLICES: Final = (1, 3, 5)  # that a bundle may have

app = typer.Typer(help="Train on a hospital's own nodes: one folder of DICOM files and one table.", no_args_is_help=True)

Table = Annotated[Path, typer.Option("--table", help="CSV or Parquet table with one row for each node.", exists=True)]
Data = Annotated[Path, typer.Option("--data", help="Folder of the DICOM files.", exists=True, file_okay=False)]
ByPatientId = Annotated[
    bool,
    typer.Option("--patient-id/--ignore-patient-id", help="Whether the Patient ID in the images identifies patients."),
]
Work = Annotated[Path, typer.Option("--work", help="Cache folder of the crops; a second run resumes from it.")]
Families = Annotated[
    list[str] | None,
    typer.Option(
        help=f"Network family, one of {', '.join(ARCHITECTURES)}; may be repeated. Default: all; densenet121 with fewer than {FEW_PATIENTS} patients."
    ),
]
Blood = Annotated[
    bool, typer.Option("--blood", help="The networks also see the attenuation of the blood, which tells the contrast phase.")
]
FromBundle = Annotated[
    str | None,
    typer.Option(help='"demo" or the folder of a bundle from whose networks the training starts; it fixes family and crops.'),
]
Processes = Annotated[int, typer.Option(help="Number of series that are read, and networks that are trained, in parallel.")]


@app.command()
def check(table_: Table, data: Data, by_patient_id: ByPatientId = True) -> None:
    """List the problems of the table and what to do about them, and warn of possible duplicates; exit code 1 if there are problems."""
    rows, problems = node_table.read_table(table_)
    images = _folder(data)
    problems = sorted(
        [*problems, *table_check.table_problems(rows, images, by_patient_id=by_patient_id)], key=lambda problem: problem.row
    )
    warnings = [f"warning: {problem}" for problem in table_check.table_warnings(rows, images)]
    for line in [*map(str, problems), *warnings]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(_summary(rows), markup=False, highlight=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)


@app.command()
def train(
    table_: Table,
    data: Data,
    out: Annotated[
        Path,
        typer.Option(help="Folder to write: bundle/, split.csv, report.html, checklists.md, and work/, for a later run."),
    ],
    name: Annotated[str, typer.Option(help="Name of the model, as reports show it.")] = "own-nodes",
    family: Families = None,
    folds: Annotated[
        int, typer.Option(min=1, max=FOLDS, help="Folds of the cross-validation on which the networks are selected.")
    ] = FOLDS,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each network.")] = 30,
    batch: Annotated[int, typer.Option(min=2, help="Nodes in a batch.")] = 32,
    output_stride: Annotated[int, typer.Option(help="8, 16 or 32: crop pixels per cell of the last feature map.")] = 8,
    pixels: Annotated[int, typer.Option(min=32, help="Side of both crops in pixels.")] = CropSettings().pixels,
    slices: Annotated[int, typer.Option(help="1, 3 or 5: slices, 3 mm apart, that the networks see.")] = CropSettings().slices,
    blood: Blood = False,
    from_bundle: FromBundle = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the initial weights.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    processes: Processes = 2,
    detector: Annotated[str, typer.Option(help='"demo" or the folder of a bundle whose detector is copied.')] = "demo",
    onnx: Annotated[bool, typer.Option("--onnx", help="Also export both networks as ONNX.")] = False,
    by_patient_id: ByPatientId = True,
) -> None:
    """Run the protocol of the paper on your own nodes: split, train, select, calibrate, test once, export, report."""
    if unknown := set(family or ()) - set(ARCHITECTURES):
        raise typer.BadParameter(
            f"unknown family {', '.join(sorted(unknown))}: choose from {', '.join(ARCHITECTURES)}", param_hint="--family"
        )
    rows, images = _checked(table_, data, by_patient_id)
    start = load_starting_bundle(from_bundle, rows, table_.name) if from_bundle else None
    crops = _crops(CropSettings(pixels=pixels, slices=slices, blood_pool=blood), start)
    plan = CohortPlan(
        name=name,
        work=out / "work",
        families=tuple(family or (start.families if start else ARCHITECTURES)),
        folds=folds,
        epochs=epochs,
        batch=batch,
        output_stride=output_stride,
        seed=seed,
        device=choose_device(device).type,
        processes=processes,
        synthetic=phantom_truth.any_phantom(rows.values()),
        detector=detector,
        crops=crops,
        start=start,
    )
    with progress_bars() as report:
        nodes = _nodes(rows, images, CropOptions(plan.crops, plan.work / "crops", processes), report)
        _refuse_copies(rows, nodes, table_.name)
        plan = plan if family or start else _fewer_families(plan, len(nodes.cohort.patients))
        outcome = train_on_cohort(plan, nodes, report, out / "bundle")
    (out / "report.html").write_text(outcome.page, encoding="utf-8")
    console.print(metrics_table(outcome.figures), markup=False, highlight=False, soft_wrap=True)
    console.print(f"wrote bundle {outcome.digest[:12]} to {out / 'bundle'}, and {out / 'report.html'}", markup=False)
    if onnx:
        console.print(onnx_export.export_onnx(bundles.load(out / "bundle"), out / "onnx"), markup=False)


def _crops(given: CropSettings, start: StartingBundle | None) -> CropSettings:
    """Return the crops of the bundle that the training starts from, or the given ones."""
    if given.slices not in SLICES:
        raise typer.BadParameter(f"{given.slices} slices: choose 1, 3 or 5", param_hint="--slices")
    if start and given != CropSettings():
        advice = "the bundle fixes the crops: leave out --pixels, --slices and --blood"
        raise typer.BadParameter(advice, param_hint="--from-bundle")
    return start.crops if start else given


def _refuse_copies(rows: Rows, nodes: node_crops.NodeCrops, what: str) -> None:
    problems = copied_nodes.copy_problems(node_crops.numbers_of(rows), nodes.cohort)
    table_check.refuse_problems(problems, what)


def _fewer_families(plan: CohortPlan, patients: int) -> CohortPlan:
    """Return the plan with the paper's family only when there are too few patients to choose between families."""
    if patients >= FEW_PATIENTS:
        return plan
    said = f"{patients} patients are too few to choose between families: only {PAPER[0]} is trained (--family selects others)"
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    return replace(plan, families=PAPER[:1])


@app.command()
def evaluate(
    table_: Table,
    data: Data,
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')],
    out: Annotated[Path, typer.Option(help="HTML page to write; it needs no other file.")] = Path("report.html"),
    work: Work = Path("runs/evaluate"),
    processes: Processes = 2,
    by_patient_id: ByPatientId = True,
) -> None:
    """Evaluate a bundle on all labelled nodes of a table; patients with whom it was trained are refused if they can be recognised."""
    loaded = bundles.load(bundles.resolve(bundle))
    rows, images = _checked(table_, data, by_patient_id)
    table_check.refuse_problems(bundle_patients.known_patient_problems(rows, loaded, bundles.resolve(bundle)), table_.name)
    with progress_bars() as report:
        nodes = _nodes(rows, images, CropOptions(loaded.crop_settings, work / "crops", processes), report)
    models = build.networks_of_bundle(loaded)
    title = f"{loaded.manifest.name} {loaded.manifest.version} ({loaded.digest[:12]}) on cohort {nodes.digest[:12]}"
    out.write_text(page.render_page(evaluation_page(loaded, models, nodes, title)), encoding="utf-8")
    threshold = loaded.identity.operating_point.threshold
    figures = evaluate_ensemble(nodes.cohort, models, loaded.manifest.temperature, threshold)
    console.print(metrics_table(figures), markup=False, highlight=False, soft_wrap=True)
    console.print(f"wrote {out}", markup=False)


def _folder(data: Path) -> DicomFolder:
    with console.status("reading headers"):
        return dicom_folder.read_folder(data)


def _checked(table_: Path, data: Path, by_patient_id: bool) -> tuple[Rows, DicomFolder]:
    """Return the rows and the folder; refuse a table with problems, and a table without nodes of both classes."""
    rows, problems = node_table.read_table(table_)
    images = _folder(data)
    problems += table_check.table_problems(rows, images, by_patient_id=by_patient_id)
    table_check.refuse_problems(problems, table_.name)
    table_check.require_both_classes(rows, table_.name)
    console.print(_summary(rows), markup=False, highlight=False, soft_wrap=True)
    return rows, images


def _nodes(
    rows: Rows, images: DicomFolder, options: CropOptions, report: Callable[[str, int], Callable[[], None]]
) -> node_crops.NodeCrops:
    count = len(node_crops.series_of(rows))
    return node_crops.collect_nodes(rows, images, options, report("series", count))


def _summary(rows: Rows) -> str:
    labelled = table_check.labelled_rows(rows).values()
    malignant = sum(row.label == node_table.MALIGNANT for row in labelled)
    patients = len({row.patient for row in labelled})
    without = len(rows) - len(labelled)
    more = f"; {without} nodes without a label are not used" if without else ""
    return f"{len(labelled)} nodes ({malignant} malignant) of {patients} patients{more}"
