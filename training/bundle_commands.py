"""Commands on model bundles: demo, attach, validated, evaluate, report, onnx."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alnnode.model import bundle as bundles
from alnnode.phantom import PhantomSettings, Surroundings
from alnnode.records import Crop
from training.data import cohort as cohorts
from training.data import node_features
from training.evaluate.bundle_metrics import evaluate_ensemble, metrics_table
from training.evaluate.cam_energy import cam_energy_of_phantoms
from training.evaluate.fresh_phantoms import refuse_used_seed
from training.fit import demo_bundle
from training.fit.member import TrainSettings
from training.networks import build, onnx_export
from training.networks.inference import mean_probability, predict_logits, stack_logits
from training.report import bundle_export, page
from training.report.progress import console, progress_bars

if TYPE_CHECKING:
    from training.fit.bundle_contents import DetectorFiles

Seed = Annotated[int, typer.Option(help="Seed of the training phantoms; validation uses seed + 1 and test seed + 2.")]
Cache = Annotated[Path, typer.Option(help="Cache folder of crops and checkpoints; a second run resumes from it.")]
Axilla = Annotated[
    bool, typer.Option("--axilla", help="Phantoms with strands, clusters, contact and metal, as of `alnnode phantom --axilla`.")
]


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


def validated(
    statement: Annotated[str, typer.Argument(help="One sentence with the patients and the result, which every report quotes.")],
    bundle: Annotated[str, typer.Option(help="Folder of a bundle that is not a demo_bundle.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; may be the folder of the old one.")],
) -> None:
    """Declare that a bundle was validated on patients; only the results of such a bundle say "suspicious"."""
    digest = bundle_export.declare_validated(bundles.load(bundles.resolve(bundle)), statement, out)
    console.print(f"wrote bundle {digest[:12]} to {out}", markup=False)


def evaluate(
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the phantoms; it must not have been used for training.")] = 9001,
    patients: Annotated[int, typer.Option(help="Number of phantoms.")] = 60,
    axilla: Axilla = False,
    work: Cache = Path("runs/evaluate"),
    out: Annotated[Path | None, typer.Option(help="JSON file to write with the metrics.")] = None,
) -> None:
    """Evaluate a bundle on phantoms of a new seed with the true positions of the nodes."""
    loaded = bundles.load(bundles.resolve(bundle))
    refuse_used_seed(loaded, seed)
    crops = loaded.crop_settings
    with progress_bars() as report:
        part = cohorts.collect_cohort(
            cohorts.PhantomSource(seed, _phantoms(axilla=axilla), crops),
            patients,
            work / "crops",
            report("evaluation phantoms", patients),
        )
    models = build.networks_of_bundle(loaded)
    point = loaded.identity.operating_point
    figures = evaluate_ensemble(part, models, loaded.manifest.temperature, point.threshold)
    console.print(
        f"bundle {loaded.digest[:12]}, phantom seed {seed}{', axilla' * axilla}: {figures.nodes} nodes of {figures.patients} phantoms",
        markup=False,
    )
    console.print(metrics_table(figures), markup=False, highlight=False, soft_wrap=True)
    if out:
        out.write_text(json.dumps(figures.as_dict(), indent=2) + "\n", encoding="utf-8")


def report(
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the phantoms; it must not have been used for training.")] = 9001,
    patients: Annotated[int, typer.Option(help="Number of phantoms.")] = 60,
    cam_phantoms: Annotated[int, typer.Option("--gazed", help="Number of phantoms on which Grad-CAM energy is measured.")] = 10,
    axilla: Axilla = False,
    work: Cache = Path("runs/evaluate"),
    out: Annotated[Path, typer.Option(help="HTML page to write; it needs no other file.")] = Path("report.html"),
) -> None:
    """Write an HTML page about a bundle on phantoms: metrics, curves, subgroups, Grad-CAM energy, largest errors."""
    loaded = bundles.load(bundles.resolve(bundle))
    refuse_used_seed(loaded, seed)
    source = cohorts.PhantomSource(seed, _phantoms(axilla=axilla), loaded.crop_settings)
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


def onnx(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
) -> None:
    """Export both networks of a bundle as ONNX and check them against PyTorch."""
    console.print(onnx_export.export_onnx(bundles.load(bundles.resolve(bundle)), out), markup=False)


def _phantoms(*, axilla: bool) -> PhantomSettings:
    return PhantomSettings(surroundings=Surroundings.AXILLA) if axilla else PhantomSettings()


def _read_detector(folder: Path) -> DetectorFiles:
    settings = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    return (folder / "detector.safetensors").read_bytes(), settings
