"""``python -m training``: make the demonstration bundle, evaluate any bundle on fresh phantoms."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alnnode.imaging.series import read_volume
from alnnode.locate.detector import Detector
from alnnode.model import bundle as bundles
from alnnode.model import network
from alnnode.phantom import PhantomSettings
from alnnode.records import Crop
from training import cohort as cohorts
from training import demo as demonstration
from training import detection_report, examine, export, froc
from training import evaluate as evaluation
from training.train import TrainSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

app = typer.Typer(help="Train, evaluate and export model bundles.", no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()

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
    with _bars() as report:
        made = demonstration.make(plan, _read_detector(detector) if detector else None, report)
    digest = export.write(made, out)
    console.print(evaluation.table(made.figures), markup=False, highlight=False, soft_wrap=True)
    console.print(f"bundle {digest[:12]} in {out}", markup=False)


@app.command()
def attach(
    detector: Annotated[Path, typer.Option(help="Folder with detector.safetensors and detector.json.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; may be the old one.")],
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
) -> None:
    """Put a newly trained detector into a bundle; the classifiers stay as they are."""
    digest = export.attach(bundles.load(bundles.resolve(bundle)), _read_detector(detector), out)
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
    used = loaded.manifest.provenance.get("seed")
    if isinstance(used, int) and used <= seed <= used + 2:
        raise typer.BadParameter(
            f"seed {seed} was used to make this bundle ({used} to {used + 2}); take another", param_hint="--seed"
        )
    crops = loaded.crop_settings
    with _bars() as report:
        part = cohorts.collect(
            cohorts.Source(seed, PhantomSettings(), crops), patients, work / "crops", report("evaluation phantoms", patients)
        )
    models = {
        crop: network.restore(len(crops.windows), loaded.member(crop).output_stride, loaded.tensors(crop.value))
        for crop in Crop
    }
    point = loaded.identity.operating_point
    figures = evaluation.evaluate(part, models, loaded.manifest.temperature, point.threshold)
    console.print(
        f"bundle {loaded.digest[:12]}, phantom seed {seed}: {figures.nodes} nodes of {figures.patients} phantoms", markup=False
    )
    console.print(evaluation.table(figures), markup=False, highlight=False, soft_wrap=True)
    if out:
        out.write_text(json.dumps(figures.as_dict(), indent=2) + "\n", encoding="utf-8")


@app.command("evaluate-detector")
def evaluate_detector(
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    seed: Annotated[int, typer.Option(help="A seed that was never trained on.")] = 9001,
    patients: Annotated[int, typer.Option(help="Phantoms; with --ct, how often nodes are put into each CT.")] = 60,
    ct: Annotated[
        list[Path] | None, typer.Option(help="Folder of a real CT series: phantom nodes are put into it. May be repeated.")
    ] = None,
    per_side: Annotated[int, typer.Option(help="With --ct: nodes that are put into each axilla.")] = 4,
    threshold: Annotated[float | None, typer.Option(help="Least score of a node; left out: the bundle's own.")] = None,
    processes: Annotated[int, typer.Option()] = 2,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON, too.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Write the nodes that were missed as one PNG (phantoms only).")] = None,
) -> None:
    """Locate and classify on phantoms of a fresh seed: free-response figures, measures, and AUROC of what was found."""
    loaded = bundles.load(bundles.resolve(bundle))
    detector = Detector.from_bundle(loaded)
    plan = examine.Plan(detector, seed, PhantomSettings(), bundle)
    volumes = [read_volume(sorted(path for path in folder.rglob("*") if path.is_file())) for folder in ct or []]
    count = patients * max(1, len(volumes))
    with _bars() as report:
        step = report("volumes", count)
        parts = []
        made = (
            examine.examine_implants(plan, volumes, patients, per_side)
            if volumes
            else examine.examine(plan, patients, processes)
        )
        for part in made:
            parts.append(part)
            step()
    examined = froc.join(parts)
    least = detector.settings.threshold if threshold is None else threshold
    figures = detection_report.figures(examined, least)
    console.print(f"bundle {loaded.digest[:12]}, seed {seed}: {figures['nodes']} nodes in {count} volumes", markup=False)
    console.print(detection_report.table(figures), markup=False, highlight=False, soft_wrap=True)
    if out:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if pictures and not volumes:
        missed = detection_report.draw_misses(examined, least, seed, plan.phantoms, pictures)
        console.print(f"{missed} missed node(s) in {pictures}", markup=False)


def _read_detector(folder: Path) -> export.Detector:
    settings = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    return (folder / "detector.safetensors").read_bytes(), settings


@contextmanager
def _bars() -> Iterator[Callable[[str, int], Callable[[], None]]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:

        def report(name: str, total: int) -> Callable[[], None]:
            return partial(bars.advance, bars.add_task(name, total=total))

        yield report


if __name__ == "__main__":
    app()
