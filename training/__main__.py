"""``python -m training``: make the demonstration bundle, evaluate any bundle on fresh phantoms."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from alnnode.errors import AlnnodeError
from alnnode.model import bundle as bundles
from alnnode.model.ensemble import choose_device, describe_device
from alnnode.phantom import PhantomSettings
from alnnode.records import Crop
from training.clinical import commands
from training.clinical.importing import import_nodes
from training.data import cohort as cohorts
from training.data import described
from training.deeplesion.command import deeplesion
from training.detection.evaluate import evaluate_real
from training.evaluate import bundle as evaluation
from training.evaluate import gaze as gazes
from training.evaluate import operating_points
from training.evaluate.detector import evaluate_detector
from training.fit import demo as demonstration
from training.fit import grid, reproduction
from training.fit import lidc as lidc_nodules
from training.fit import reproduce as reproducing
from training.fit.member import TrainSettings, logits
from training.networks import build, export, onnx_export
from training.report import lidc_report, page, reproduce_report
from training.report.progress import bars, console

app = typer.Typer(help="Train, evaluate and export model bundles.", no_args_is_help=True, pretty_exceptions_enable=False)
app.command("evaluate-detector")(evaluate_detector)
app.command("evaluate-real")(evaluate_real)
app.command("deeplesion")(deeplesion)
app.command("import")(import_nodes)
app.add_typer(commands.app, name="cohort")

Seed = Annotated[
    int, typer.Option(help="Seed of the training phantoms; validation has the next one and test the one after it.")
]
Cache = Annotated[Path, typer.Option(help="Where crops and checkpoints are kept; a second run goes on from there.")]


@app.callback()
def root() -> None:
    """Figures on phantoms say nothing about patients."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    detector: Annotated[Path | None, typer.Option(help="Folder with detector.safetensors and detector.json.")] = None,
    work: Cache = Path("runs/demo"),
    seed: Seed = 1000,
    patients: Annotated[int, typer.Option(help="Training phantoms.")] = 120,
    held_out: Annotated[int, typer.Option(help="Validation phantoms, and test phantoms.")] = 60,
    epochs: Annotated[int, typer.Option()] = 10,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Train both members on phantoms, calibrate, evaluate on held-out phantoms and write the bundle."""
    plan = demonstration.Plan(seed, patients, held_out, work, TrainSettings(epochs=epochs, seed=seed, device=device))
    with bars() as report:
        made = demonstration.make(plan, _read_detector(detector) if detector else None, report)
    digest = export.write(made, out)
    console.print(evaluation.table(made.figures), markup=False, highlight=False, soft_wrap=True)
    console.print(f"bundle {digest[:12]} in {out}", markup=False)


@app.command()
def attach(
    detector: Annotated[Path, typer.Option(help="Folder with detector.safetensors and detector.json.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; may be the old one.")],
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    figures: Annotated[
        Path | None, typer.Option(help="What evaluate-detector --out wrote of this detector; it goes into the model card.")
    ] = None,
) -> None:
    """Put a newly trained detector into a bundle; the classifiers stay as they are."""
    measured = json.loads(figures.read_text(encoding="utf-8")) if figures else None
    digest = export.attach(bundles.load(bundles.resolve(bundle)), _read_detector(detector), out, measured)
    console.print(f"bundle {digest[:12]} in {out}", markup=False)


@app.command()
def validated(
    statement: Annotated[
        str, typer.Argument(help="On which patients, with what result: one sentence that every report quotes.")
    ],
    bundle: Annotated[str, typer.Option(help="The folder of a bundle that is no demonstration.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; may be the old one.")],
) -> None:
    """Write into a bundle that it was validated on patients: only then do its results say "suspicious"."""
    digest = export.declare_validated(bundles.load(bundles.resolve(bundle)), statement, out)
    console.print(f"bundle {digest[:12]} in {out}", markup=False)


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    seed: Annotated[int, typer.Option(help="A seed that was never trained on.")] = 9001,
    patients: Annotated[int, typer.Option()] = 60,
    work: Cache = Path("runs/evaluate"),
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON, too.")] = None,
) -> None:
    """Evaluate a bundle on phantoms of a fresh seed, nodes located by truth."""
    loaded = bundles.load(bundles.resolve(bundle))
    _refuse_used(loaded, seed)
    crops = loaded.crop_settings
    with bars() as report:
        part = cohorts.collect(
            cohorts.Source(seed, PhantomSettings(), crops), patients, work / "crops", report("evaluation phantoms", patients)
        )
    models = build.of_bundle(loaded)
    point = loaded.identity.operating_point
    figures = evaluation.evaluate(part, models, loaded.manifest.temperature, point.threshold)
    console.print(
        f"bundle {loaded.digest[:12]}, phantom seed {seed}: {figures.nodes} nodes of {figures.patients} phantoms", markup=False
    )
    console.print(evaluation.table(figures), markup=False, highlight=False, soft_wrap=True)
    if out:
        out.write_text(json.dumps(figures.as_dict(), indent=2) + "\n", encoding="utf-8")


@app.command()
def report(
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    seed: Annotated[int, typer.Option(help="A seed that was never trained on.")] = 9001,
    patients: Annotated[int, typer.Option()] = 60,
    gazed: Annotated[int, typer.Option(help="Phantoms on which Grad-CAM is counted.")] = 10,
    work: Cache = Path("runs/evaluate"),
    out: Annotated[Path, typer.Option(help="The page; it needs no other file.")] = Path("report.html"),
) -> None:
    """Write one HTML page: figures, curves, subgroups, where the networks look, the worst mistakes."""
    loaded = bundles.load(bundles.resolve(bundle))
    _refuse_used(loaded, seed)
    source = cohorts.Source(seed, PhantomSettings(), loaded.crop_settings)
    models = build.of_bundle(loaded)
    with bars() as progress:
        nodes = described.collect(source, patients, work / "crops", progress("evaluation phantoms", patients))
        gaze, likeness = gazes.look(source, gazed, models, progress("phantoms looked at", gazed))
    scores = {crop: logits(model, nodes.cohort, crop) for crop, model in models.items()}
    probability = operating_points.mean_probability(operating_points.stack(scores), loaded.manifest.temperature)
    beside = {crop.value.upper(): scores[crop] for crop in Crop} | {"short axis alone": nodes.cohort.short_axis}
    evaluated = page.Evaluation(
        title=f"{loaded.manifest.name} {loaded.manifest.version} ({loaded.digest[:12]}) on phantoms of seed {seed}",
        notice="Research use only. Measured on drawings: none of this says anything about patients.",
        cohort=nodes.cohort,
        scores={"ensemble": probability, **beside},
        threshold=loaded.identity.operating_point.threshold,
        groups=nodes.groups(),
        gaze=gaze,
        likeness=likeness,
    )
    out.write_text(page.render(evaluated), encoding="utf-8")
    console.print(f"{out} is written", markup=False)


@app.command()
def lidc(
    data: Annotated[Path, typer.Option(help="Folder that holds lidc_nodule_2crop.npz.")],
    work: Cache = Path("runs/lidc"),
    seed: Annotated[int, typer.Option(help="Of the folds and the weights.")] = 7,
    epochs: Annotated[int, typer.Option(help="Of every network.")] = 4,
    family: Annotated[list[str] | None, typer.Option(help="Families to train; may be given several times.")] = None,
    processes: Annotated[int, typer.Option(help="Networks trained side by side, one thread each.")] = 2,
    out: Annotated[Path, typer.Option(help="The table, with what it shows and what not.")] = Path("docs/lidc.md"),
) -> None:
    """Run the two-crop protocol on real lung nodules (LIDC-IDRI): five folds by patient, each family under each crop."""
    families = tuple(family or lidc_nodules.FAMILIES)
    wanted = lidc_nodules.tasks(families, seed, epochs)
    work = work / lidc_nodules.digest(data)[:12]
    with bars() as report:
        grid.train(partial(lidc_nodules.parts, data, seed), wanted, work, report("networks", len(wanted)), processes)
        nodules = lidc_nodules.read(data)
        features = lidc_nodules.frozen_features(nodules, work, report("frozen features", len(Crop)))
    rows = lidc_report.rows_of(nodules, wanted, features, work, seed)
    command = f"python -m training lidc --data FOLDER --seed {seed} --epochs {epochs} " + " ".join(
        f"--family {name}" for name in families
    )
    out.write_text(lidc_report.markdown(nodules, rows, command, seed, describe_device(choose_device("cpu"))), encoding="utf-8")
    console.print(f"{out} is written", markup=False)


@app.command()
def reproduce(
    profile: Annotated[
        str, typer.Option(help="full, reduced, small or tiny; training/fit/reproduction.toml says what each is.")
    ] = "reduced",
    work: Cache = Path("runs/reproduction"),
    out: Annotated[Path, typer.Option(help="The document.")] = Path("docs/reproduction.md"),
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle that is made.")] = Path("runs/reproduction/bundle"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    processes: Annotated[int, typer.Option(help="Networks trained side by side; on CPU one thread each.")] = 2,
    figures: Annotated[
        Path | None, typer.Option(help="What evaluate-detector --out wrote of this bundle; it goes into the model card.")
    ] = None,
) -> None:
    """Run the whole protocol of the paper on a phantom cohort of its shape; goes on where an earlier run stopped."""
    chosen = choose_device(device)
    plan = reproduction.read(profile, work, chosen.type, processes)
    if figures:
        plan = replace(plan, detection=json.loads(figures.read_text(encoding="utf-8")))
    minutes = reproducing.expected_seconds(plan) / 60
    console.print(f"about {minutes:.0f} minutes from nothing, on {describe_device(chosen)}", markup=False, highlight=False)
    with bars() as report:
        outcome = reproducing.run(plan, report, bundle)
    out.write_text(reproduce_report.markdown(plan, outcome, describe_device(chosen)), encoding="utf-8")
    console.print(f"bundle {outcome.digest[:12]} in {bundle}; {out} is written", markup=False)


def _refuse_used(loaded: bundles.Bundle, seed: int) -> None:
    used = loaded.manifest.provenance.get("seed")
    if isinstance(used, int) and used <= seed <= used + 2:
        raise typer.BadParameter(
            f"seed {seed} was used to make this bundle ({used} to {used + 2}); take another", param_hint="--seed"
        )


def _read_detector(folder: Path) -> export.Detector:
    settings = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    return (folder / "detector.safetensors").read_bytes(), settings


@app.command()
def onnx(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
) -> None:
    """Write both networks of a bundle as ONNX, checked against PyTorch."""
    console.print(onnx_export.write(bundles.load(bundles.resolve(bundle)), out), markup=False)


def main() -> None:
    """Run the command; turn the project's own errors into clear lines and exit code 1."""
    try:
        app()
    except AlnnodeError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False, highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
