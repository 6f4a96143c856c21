"""``python -m training``: make the demonstration bundle, evaluate any bundle on fresh phantoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alnnode.imaging.crop import CropSettings
from alnnode.model import bundle as bundles
from alnnode.model import network
from alnnode.records import Crop
from training import cohort as cohorts
from training import evaluate as evaluation
from training import export, statistics
from training.train import TrainSettings, logits, train_member

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

app = typer.Typer(help="Train, evaluate and export model bundles.", no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()
SENSITIVITY_TARGET = 0.95

Seed = Annotated[int, typer.Option(help="Seeds of validation and test follow from it: +1 and +2.")]
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
    patients: Annotated[int, typer.Option(help="Training phantoms; validation and test have a third of it each.")] = 330,
    epochs: Annotated[int, typer.Option()] = 10,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Train both members on phantoms, calibrate, evaluate on held-out phantoms and write the bundle."""
    crops = CropSettings()
    parts = {
        "train": _collect("training", seed, patients, crops, work),
        "validation": _collect("validation", seed + 1, patients // 3, crops, work),
        "test": _collect("test", seed + 2, patients // 3, crops, work),
    }
    cohorts.check_leakage(**parts)
    members, scores = {}, {}
    for crop in Crop:
        settings = TrainSettings(epochs=epochs, seed=seed, device=device)
        with _bar() as bar:
            task = bar.add_task(f"epochs, {crop.value}", total=epochs)
            weights = train_member(
                crop, parts["train"], parts["validation"], settings, work / f"seed-{seed}", lambda: bar.advance(task)
            )
        members[crop] = export.halved(weights)
        model = network.restore(len(crops.windows), members[crop]).to(device, memory_format=torch.channels_last)
        scores[crop] = {name: logits(model, part, crop, device) for name, part in parts.items() if name != "train"}
    temperature, threshold = _calibrate(parts["validation"], {crop: scores[crop]["validation"] for crop in Crop})
    figures = evaluation.evaluate(parts["test"], {crop: scores[crop]["test"] for crop in Crop}, temperature, threshold)
    test_set = f"held-out synthetic phantoms, seed {seed + 2}, n = {figures.nodes} nodes of {figures.patients} patients"
    made = export.Export(
        name="alnnode-demo",
        version="0.1.0",
        demonstration=True,
        training_data=f"synthetic phantoms only: {len(parts['train'])} nodes of {patients} phantoms, seed {seed}",
        crops=crops,
        members=members,
        temperature=temperature,
        figures=figures,
        test_set=test_set,
        detector=_detector(detector),
        provenance={
            "command": "python -m training demo",
            "seed": seed,
            "patients": patients,
            "epochs": epochs,
            "device": device,
        },
    )
    digest = export.write(made, out)
    console.print(evaluation.table(figures), markup=False, highlight=False)
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
    part = _collect("evaluation", seed, patients, crops, work)
    scores = {crop: logits(network.restore(len(crops.windows), loaded.tensors(crop.value)), part, crop) for crop in Crop}
    point = loaded.identity.operating_point
    figures = evaluation.evaluate(part, scores, loaded.manifest.temperature, point.threshold)
    console.print(
        f"bundle {loaded.digest[:12]}, phantom seed {seed}: {figures.nodes} nodes of {figures.patients} phantoms", markup=False
    )
    console.print(evaluation.table(figures), markup=False, highlight=False)
    if out:
        out.write_text(json.dumps(figures.as_dict(), indent=2) + "\n", encoding="utf-8")


def _collect(name: str, seed: int, patients: int, crops: CropSettings, work: Path) -> cohorts.Cohort:
    with _bar() as bar:
        task = bar.add_task(f"{name} phantoms", total=patients)
        return cohorts.collect(seed, patients, crops, work / "crops", lambda: bar.advance(task))


def _calibrate(part: cohorts.Cohort, scores: dict[Crop, npt.NDArray[np.float64]]) -> tuple[float, float]:
    stacked = statistics.stack(scores)
    temperature = statistics.temperature_for(part.malignant, stacked)
    probability = statistics.mean_probability(stacked, temperature)
    return temperature, statistics.threshold_for(part.malignant, probability, SENSITIVITY_TARGET)


def _detector(folder: Path | None) -> tuple[bytes, dict[str, object]] | None:
    if folder is None:
        return None
    settings = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    return (folder / "detector.safetensors").read_bytes(), settings


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


if __name__ == "__main__":
    app()
