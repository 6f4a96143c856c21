"""``python -m training``: train, evaluate and export model bundles."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from alnnode.errors import AlnnodeError
from alnnode.model import bundle as bundles
from alnnode.model.ensemble import choose_device, describe_device
from alnnode.phantom import PhantomSettings
from alnnode.records import Crop
from training.clinical import cohort_commands
from training.clinical.import_command import import_nodes
from training.data import cohort as cohorts
from training.data import node_features
from training.deeplesion.command import deeplesion
from training.detection.evaluate_patients import evaluate_real
from training.detection.evaluate_phantoms import evaluate_detector
from training.evaluate.bundle_metrics import evaluate_ensemble, metrics_table
from training.evaluate.cam_energy import cam_energy_of_phantoms
from training.fit import demo_bundle, grid, ledger, reproduction_terms
from training.fit import lidc as lidc_nodules
from training.fit import reproduce as reproduction
from training.fit.member import TrainSettings
from training.networks import build, onnx_export
from training.networks.inference import mean_probability, predict_logits, stack_logits
from training.report import bundle_export, lidc_report, page, reproduce_report
from training.report.progress import console, progress_bars

if TYPE_CHECKING:
    from training.fit.bundle_contents import DetectorFiles

app = typer.Typer(help="Train, evaluate and export model bundles.", no_args_is_help=True, pretty_exceptions_enable=False)
app.command("evaluate-detector")(evaluate_detector)
app.command("evaluate-real")(evaluate_real)
app.command("deeplesion")(deeplesion)
app.command("import")(import_nodes)
app.add_typer(cohort_commands.app, name="cohort")

Seed = Annotated[int, typer.Option(help="Seed of the training phantoms; validation uses seed + 1 and test seed + 2.")]
Cache = Annotated[Path, typer.Option(help="Cache folder of crops and checkpoints; a second run resumes from it.")]


@app.callback()
def root() -> None:
    """Results on phantoms are no evidence about patients."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write.")],
    detector: Annotated[Path | None, typer.Option(help="Folder with detector.safetensors and detector.json.")] = None,
    work: Cache = Path("runs/demo"),
    seed: Seed = 1000,
    patients: Annotated[int, typer.Option(help="Number of training phantoms.")] = 120,
    held_out: Annotated[int, typer.Option(help="Number of validation phantoms, and of test phantoms.")] = 60,
    epochs: Annotated[int, typer.Option(help="Epochs of each network.")] = 10,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Train both networks on phantoms, calibrate, evaluate on held-out phantoms and write the bundle."""
    plan = demo_bundle.DemoPlan(seed, patients, held_out, work, TrainSettings(epochs=epochs, seed=seed, device=device))
    with progress_bars() as report:
        made = demo_bundle.train_demo_bundle(plan, _read_detector(detector) if detector else None, report)
    digest = bundle_export.write_bundle(made, out)
    console.print(metrics_table(made.figures), markup=False, highlight=False, soft_wrap=True)
    console.print(f"wrote bundle {digest[:12]} to {out}", markup=False)


@app.command()
def attach(
    detector: Annotated[Path, typer.Option(help="Folder with detector.safetensors and detector.json.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; may be the folder of the old one.")],
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    figures: Annotated[
        Path | None, typer.Option(help="JSON file that evaluate-detector --out wrote for this detector, for the model card.")
    ] = None,
) -> None:
    """Put another detector into a bundle; the classifiers do not change."""
    measured = json.loads(figures.read_text(encoding="utf-8")) if figures else None
    digest = bundle_export.attach_detector(bundles.load(bundles.resolve(bundle)), _read_detector(detector), out, measured)
    console.print(f"wrote bundle {digest[:12]} to {out}", markup=False)


@app.command()
def validated(
    statement: Annotated[str, typer.Argument(help="One sentence with the patients and the result, which every report quotes.")],
    bundle: Annotated[str, typer.Option(help="Folder of a bundle that is not a demo_bundle.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; may be the folder of the old one.")],
) -> None:
    """Declare that a bundle was validated on patients; only the results of such a bundle say "suspicious"."""
    digest = bundle_export.declare_validated(bundles.load(bundles.resolve(bundle)), statement, out)
    console.print(f"wrote bundle {digest[:12]} to {out}", markup=False)


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the phantoms; it must not have been used for training.")] = 9001,
    patients: Annotated[int, typer.Option(help="Number of phantoms.")] = 60,
    work: Cache = Path("runs/evaluate"),
    out: Annotated[Path | None, typer.Option(help="JSON file to write with the metrics.")] = None,
) -> None:
    """Evaluate a bundle on phantoms of a new seed with the true positions of the nodes."""
    loaded = bundles.load(bundles.resolve(bundle))
    _refuse_used_seed(loaded, seed)
    crops = loaded.crop_settings
    with progress_bars() as report:
        part = cohorts.collect_cohort(
            cohorts.PhantomSource(seed, PhantomSettings(), crops),
            patients,
            work / "crops",
            report("evaluation phantoms", patients),
        )
    models = build.networks_of_bundle(loaded)
    point = loaded.identity.operating_point
    figures = evaluate_ensemble(part, models, loaded.manifest.temperature, point.threshold)
    console.print(
        f"bundle {loaded.digest[:12]}, phantom seed {seed}: {figures.nodes} nodes of {figures.patients} phantoms", markup=False
    )
    console.print(metrics_table(figures), markup=False, highlight=False, soft_wrap=True)
    if out:
        out.write_text(json.dumps(figures.as_dict(), indent=2) + "\n", encoding="utf-8")


@app.command()
def report(
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the phantoms; it must not have been used for training.")] = 9001,
    patients: Annotated[int, typer.Option(help="Number of phantoms.")] = 60,
    cam_phantoms: Annotated[int, typer.Option("--gazed", help="Number of phantoms on which Grad-CAM energy is measured.")] = 10,
    work: Cache = Path("runs/evaluate"),
    out: Annotated[Path, typer.Option(help="HTML page to write; it needs no other file.")] = Path("report.html"),
) -> None:
    """Write an HTML page about a bundle on phantoms: metrics, curves, subgroups, Grad-CAM energy, largest errors."""
    loaded = bundles.load(bundles.resolve(bundle))
    _refuse_used_seed(loaded, seed)
    source = cohorts.PhantomSource(seed, PhantomSettings(), loaded.crop_settings)
    models = build.networks_of_bundle(loaded)
    with progress_bars() as progress:
        nodes = node_features.collect_features(source, patients, work / "crops", progress("evaluation phantoms", patients))
        energy, correlation = cam_energy_of_phantoms(source, cam_phantoms, models, progress("Grad-CAM phantoms", cam_phantoms))
    scores = {crop: predict_logits(model, nodes.cohort, crop) for crop, model in models.items()}
    probability = mean_probability(stack_logits(scores), loaded.manifest.temperature)
    others = {crop.value.upper(): scores[crop] for crop in Crop} | {"short axis alone": nodes.cohort.short_axis}
    evaluated = page.Evaluation(
        title=f"{loaded.manifest.name} {loaded.manifest.version} ({loaded.digest[:12]}) on phantoms of seed {seed}",
        notice="Research use only. Measured on synthetic phantoms: these results are no evidence about patients.",
        cohort=nodes.cohort,
        scores={"ensemble": probability, **others},
        threshold=loaded.identity.operating_point.threshold,
        groups=nodes.groups(),
        cam_energy=energy,
        cam_correlation=correlation,
    )
    out.write_text(page.render_page(evaluated), encoding="utf-8")
    console.print(f"wrote {out}", markup=False)


@app.command()
def lidc(
    data: Annotated[Path, typer.Option(help="Folder of lidc_nodule_2crop.npz.")],
    work: Cache = Path("runs/lidc"),
    seed: Annotated[int, typer.Option(help="Seed of the folds and of the initial weights.")] = 7,
    epochs: Annotated[int, typer.Option(help="Epochs of each network.")] = 4,
    family: Annotated[list[str] | None, typer.Option(help="Network family to train; may be repeated. Default: all.")] = None,
    processes: Annotated[int, typer.Option(help="Number of networks trained in parallel, with one thread each.")] = 2,
    out: Annotated[Path, typer.Option(help="Document to write.")] = Path("docs/lidc.md"),
) -> None:
    """Run the two-crop protocol on real lung nodules (LIDC-IDRI): five folds by patient, each family under both crops."""
    families = tuple(family or lidc_nodules.FAMILIES)
    wanted = lidc_nodules.training_tasks(families, seed, epochs)
    work = work / lidc_nodules.arrays_digest(data)[:12]
    with progress_bars() as report:
        grid.train_networks(
            partial(lidc_nodules.fold_data, data, seed), wanted, work, report("networks", len(wanted)), processes
        )
        nodules = lidc_nodules.read_nodules(data)
        features = lidc_nodules.frozen_features(nodules, work, report("frozen features", len(Crop)))
    rows = lidc_report.rows_of(nodules, wanted, features, work, seed)
    command = f"python -m training lidc --data FOLDER --seed {seed} --epochs {epochs} " + " ".join(
        f"--family {name}" for name in families
    )
    out.write_text(lidc_report.markdown(nodules, rows, command, seed, describe_device(choose_device("cpu"))), encoding="utf-8")
    console.print(f"wrote {out}", markup=False)


@app.command()
def reproduce(
    profile: Annotated[
        str, typer.Option(help="full, two-cores, reduced, small or tiny, as defined in training/fit/reproduction.toml.")
    ] = "reduced",
    work: Cache = Path("runs/reproduction"),
    out: Annotated[Path, typer.Option(help="Document to write.")] = Path("docs/reproduction.md"),
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle to write.")] = Path("runs/reproduction/bundle"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    processes: Annotated[int, typer.Option(help="Number of networks trained in parallel; on a CPU with one thread each.")] = 2,
    figures: Annotated[
        Path | None, typer.Option(help="JSON file that evaluate-detector --out wrote for this bundle, for the model card.")
    ] = None,
) -> None:
    """Run the protocol of the paper on a phantom cohort of the same size; an interrupted run resumes."""
    chosen = choose_device(device)
    plan = reproduction_terms.read_plan(profile, work, chosen.type, processes)
    if figures:
        plan = replace(plan, detection=json.loads(figures.read_text(encoding="utf-8")))
    minutes = reproduction.estimate_seconds(plan) / 60
    console.print(
        f"estimated duration without a cache: {minutes:.0f} minutes on {describe_device(chosen)}", markup=False, highlight=False
    )
    with progress_bars() as report:
        outcome = reproduction.run_reproduction(plan, report)
    digest = bundle_export.write_bundle(outcome.bundle, bundle, plan.detection)
    scorings = ledger.append_scoring(
        out.with_name("reproduction-ledger.jsonl"),
        plan,
        digest,
        reproduce_report.paper_auroc(outcome),
        datetime.now(UTC).date(),
    )
    out.write_text(reproduce_report.markdown(plan, outcome, digest, describe_device(chosen), scorings), encoding="utf-8")
    console.print(f"wrote bundle {digest[:12]} to {bundle}, and {out}", markup=False)


def _refuse_used_seed(loaded: bundles.Bundle, seed: int) -> None:
    used = loaded.manifest.provenance.get("seed")
    if isinstance(used, int) and used <= seed <= used + 2:
        raise typer.BadParameter(
            f"seed {seed} was used to make this bundle ({used} to {used + 2}); choose another seed", param_hint="--seed"
        )


def _read_detector(folder: Path) -> DetectorFiles:
    settings = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    return (folder / "detector.safetensors").read_bytes(), settings


@app.command()
def onnx(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
) -> None:
    """Export both networks of a bundle as ONNX and check them against PyTorch."""
    console.print(onnx_export.export_onnx(bundles.load(bundles.resolve(bundle)), out), markup=False)


def main() -> None:
    """Run the command; print errors of the project as one line and exit with code 1."""
    try:
        app()
    except AlnnodeError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False, highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
