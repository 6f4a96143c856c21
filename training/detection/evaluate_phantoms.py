"""``python -m training evaluate-detector``: evaluate a detector on phantoms, or on real CT with implanted nodes."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer evaluates annotations
from typing import TYPE_CHECKING, Annotated

import typer
from pydicom.misc import is_dicom

from alnnode.errors import NotAnalysable
from alnnode.imaging.series import read_volume
from alnnode.locate.detector import Detector
from alnnode.model import bundle as bundles
from alnnode.phantom import PhantomSettings, Surroundings
from training.data.ct_implants import GroupSettings
from training.evaluate import detection_run, froc
from training.report import detection_report
from training.report.progress import console, progress_bars

if TYPE_CHECKING:
    from alnnode.records import Volume


def evaluate_detector(
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the phantoms; it must not have been used for training.")] = 9001,
    patients: Annotated[
        int, typer.Option(help="Number of phantoms; with --ct, number of times that nodes are implanted into each CT.")
    ] = 60,
    ct: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a real CT series, into which phantom nodes are implanted; may be repeated."),
    ] = None,
    per_side: Annotated[int, typer.Option(help="With --ct: number of nodes, or of groups, implanted into each axilla.")] = 4,
    hard: Annotated[
        bool,
        typer.Option(
            "--hard",
            help="Phantoms with realistic surroundings; with --ct: groups of nodes of all kinds that may touch other structures.",
        ),
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Lowest score of a node. Default: the threshold of the bundle.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Number of parallel processes (phantoms only).")] = 2,
    out: Annotated[Path | None, typer.Option(help="JSON file to write with the metrics.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="PNG file to write with the missed nodes (phantoms only).")] = None,
) -> None:
    """Locate and classify nodes on phantoms of a new seed: FROC, accuracy of measurements, and AUROC of the found nodes."""
    loaded = bundles.load(bundles.resolve(bundle))
    detector = Detector.from_bundle(loaded)
    phantoms = PhantomSettings(surroundings=Surroundings.AXILLA if hard else Surroundings.PLAIN)
    plan = detection_run.DetectionPlan(detector, seed, phantoms, bundle)
    volumes = [_read(folder) for folder in ct or []]
    count = patients * max(1, len(volumes))
    with progress_bars() as report:
        step = report("volumes", count)
        parts = []
        made = (
            detection_run.detect_on_implants(plan, volumes, patients, per_side, GroupSettings() if hard else None)
            if volumes
            else detection_run.detect_on_phantoms(plan, patients, processes)
        )
        for part in made:
            parts.append(part)
            step()
    result = froc.join_results(parts)
    least = detector.settings.threshold if threshold is None else threshold
    figures = detection_report.detection_metrics(result, least)
    console.print(f"bundle {loaded.digest[:12]}, seed {seed}: {figures['nodes']} nodes in {count} volumes", markup=False)
    console.print(detection_report.detection_table(figures), markup=False, highlight=False, soft_wrap=True)
    if out:
        out.write_text(
            json.dumps({"seed": seed, "surroundings": str(phantoms.surroundings.value), **figures}, indent=2) + "\n",
            encoding="utf-8",
        )
    if pictures and not volumes:
        missed = detection_report.draw_misses(result, least, seed, plan.phantoms, pictures)
        console.print(f"{missed} missed node(s) in {pictures}", markup=False)


def _read(folder: Path) -> Volume:
    try:
        return read_volume(sorted(path for path in folder.rglob("*") if path.is_file() and is_dicom(path)))
    except NotAnalysable as error:
        raise typer.BadParameter(str(error), param_hint="--ct") from error
