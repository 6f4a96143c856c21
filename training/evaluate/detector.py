"""``python -m training evaluate-detector``."""

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
from training.data.implant import Groups
from training.evaluate import examine, froc
from training.report import detection_report
from training.report.progress import bars, console

if TYPE_CHECKING:
    from alnnode.records import Volume


def evaluate_detector(
    bundle: Annotated[str, typer.Option(help='"demo" or the folder of a bundle.')] = "demo",
    seed: Annotated[int, typer.Option(help="A seed that was never trained on.")] = 9001,
    patients: Annotated[int, typer.Option(help="Phantoms; with --ct, how often nodes are put into each CT.")] = 60,
    ct: Annotated[
        list[Path] | None, typer.Option(help="Folder of a real CT series: phantom nodes are put into it. May be repeated.")
    ] = None,
    per_side: Annotated[int, typer.Option(help="With --ct: nodes that are put into each axilla.")] = 4,
    hard: Annotated[
        bool,
        typer.Option(
            "--hard",
            help="Phantoms with the surroundings of patients; with --ct: groups of nodes of all kinds, contact allowed.",
        ),
    ] = False,
    threshold: Annotated[float | None, typer.Option(help="Least score of a node; left out: the bundle's own.")] = None,
    processes: Annotated[int, typer.Option()] = 2,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON, too.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Write the nodes that were missed as one PNG (phantoms only).")] = None,
) -> None:
    """Locate and classify on phantoms of a fresh seed: free-response figures, measures, and AUROC of what was found."""
    loaded = bundles.load(bundles.resolve(bundle))
    detector = Detector.from_bundle(loaded)
    phantoms = PhantomSettings(surroundings=Surroundings.AXILLA if hard else Surroundings.PLAIN)
    plan = examine.Plan(detector, seed, phantoms, bundle)
    volumes = [_read(folder) for folder in ct or []]
    count = patients * max(1, len(volumes))
    with bars() as report:
        step = report("volumes", count)
        parts = []
        made = (
            examine.examine_implants(plan, volumes, patients, per_side, Groups() if hard else None)
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
        out.write_text(json.dumps({"seed": seed, **figures}, indent=2) + "\n", encoding="utf-8")
    if pictures and not volumes:
        missed = detection_report.draw_misses(examined, least, seed, plan.phantoms, pictures)
        console.print(f"{missed} missed node(s) in {pictures}", markup=False)


def _read(folder: Path) -> Volume:
    try:
        return read_volume(sorted(path for path in folder.rglob("*") if path.is_file() and is_dicom(path)))
    except NotAnalysable as error:
        raise typer.BadParameter(str(error), param_hint="--ct") from error
